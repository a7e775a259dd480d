// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Memory and strings that are read by their address into a dynptr: of a map's value, of the frame,
 * of one that has become shorter, of none; and addresses of nothing. */
#include "kfuncs.h"

extern int bpf_probe_read_kernel_dynptr(struct bpf_dynptr *to, __u32 offset, __u32 size,
					const void *from) __ksym;
extern int bpf_probe_read_kernel_str_dynptr(struct bpf_dynptr *to, __u32 offset, __u32 size,
					    const void *from) __ksym;

struct value {
	char text[600];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct value);
} values SEC(".maps");

char words[] = "some words that are longer than a short text";

SEC("xdp")
int probe_read_dynptr(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = 0, offset = word & 63, size = word >> 6 & 31;
	struct bpf_dynptr frame, memory, null;
	struct value *value = bpf_map_lookup_elem(&values, &key), *other;

	key = 1;
	other = bpf_map_lookup_elem(&values, &key);
	if (!value || !other)
		return XDP_ABORTED;
	bpf_dynptr_from_xdp(ctx, 0, &frame);
	bpf_dynptr_from_xdp(ctx, 1, &null);
	bpf_dynptr_from_mem(value, 64, 0, &memory);
	note(0, bpf_probe_read_kernel_dynptr(&memory, offset, size, words));
	note(1, bpf_probe_read_kernel_dynptr(&frame, offset, size, words));
	note(2, bpf_probe_read_kernel_dynptr(&frame, 0, 14, NULL));
	note(3, bpf_probe_read_kernel_dynptr(&null, 0, 0, words));
	note(4, bpf_probe_read_kernel_dynptr(&null, 0, 1, words));
	note(5, bpf_probe_read_kernel_str_dynptr(&memory, offset, size, words + (word >> 12 & 31)));
	note(6, bpf_probe_read_kernel_str_dynptr(&frame, offset, size, words + (word >> 12 & 31)));
	note(7, bpf_probe_read_kernel_str_dynptr(&memory, 0, 5, (const void *)4711));
	note(8, bpf_probe_read_kernel_str_dynptr(&null, 0, 0, words));
	note(9, bpf_xdp_adjust_tail(ctx, -(int)(word >> 17 & 63)));
	for (int i = 0; i < 599; i++)
		((volatile char *)other->text)[i] = 'x';
	note(10, bpf_probe_read_kernel_dynptr(&frame, 0, bpf_dynptr_size(&frame) & 511, other));
	note(11, bpf_probe_read_kernel_str_dynptr(&frame, 0, bpf_dynptr_size(&frame) & 511, other));
	return XDP_TX;
}
