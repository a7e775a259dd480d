// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Memory read by its address: of a map, of the stack, of global data, of a constant, of the frame;
 * strings too; and addresses of nothing. */
#include "common.h"

struct value {
	char text[40];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct value);
} values SEC(".maps");

char global[24] = "global";
static const volatile char constant[] = "a constant text";

static __always_inline __u64 sum(const __u8 *bytes)
{
	__u64 total = 0;

	for (int i = 0; i < 16; i++)
		total = total * 131 + bytes[i];
	return total;
}

SEC("xdp")
int probe_read(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end, *data = (void *)(long)ctx->data;
	__u32 word = frame_word(ctx), key = word & 1;
	struct value *value = bpf_map_lookup_elem(&values, &key);
	__u8 bytes[16] = {}, stack[16] = "on the stack";

	if (!value || data + 14 > data_end)
		return XDP_ABORTED;
	__builtin_memcpy(value->text, data, 8);
	stack[3] = word;
	note(0, bpf_probe_read_kernel(bytes, word & 15, value->text));
	note(1, sum(bytes));
	note(2, bpf_probe_read_kernel(bytes, 16, stack));
	note(3, sum(bytes));
	note(4, bpf_probe_read_kernel(bytes, 5, global + (word >> 4 & 7)));
	note(5, sum(bytes));
	note(6, bpf_probe_read_kernel(bytes, 12, (const void *)constant));
	note(7, sum(bytes));
	note(8, bpf_probe_read_kernel(bytes, 14, data));
	note(9, sum(bytes));
	note(10, bpf_probe_read_kernel(bytes, 8, NULL));
	note(11, sum(bytes));
	note(12, bpf_probe_read_kernel(bytes, 0, NULL));
	note(13, bpf_probe_read_kernel(bytes, 8, (void *)4711));
	note(14, bpf_probe_read_kernel(bytes, 8, (void *)0x7fff00000000));
	note(15, bpf_probe_read_kernel_str(bytes, 16, global));
	note(16, sum(bytes));
	note(17, bpf_probe_read_kernel_str(bytes, (word & 7) + 1, (const void *)constant));
	note(18, sum(bytes));
	note(19, bpf_probe_read_kernel_str(bytes, 16, value->text + 8));
	note(20, sum(bytes));
	note(21, bpf_probe_read_kernel_str(bytes, 16, NULL));
	note(22, sum(bytes));
	note(23, bpf_probe_read_kernel_str(bytes, 0, NULL));
	note(24, bpf_probe_read_kernel_str(bytes, 16, stack));
	note(25, sum(bytes));
	global[word >> 7 & 15] = word >> 11;
	return XDP_PASS;
}
