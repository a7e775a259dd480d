// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Tells what frames it is given, and leaves them longer, shorter or with metadata: for uxdp bench,
 * which has to restore them.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct witness {
	__u64 frames;
	__u64 bytes;
	__u64 wrong; /* frames with metadata, or whose first byte was not as in the table */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct witness);
} witness SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, __u64);
} sources SEC(".maps");

SEC("xdp")
int bench_witness(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct witness *w;
	__u64 *count, one = 1, number;
	__u32 zero = 0, source;

	w = bpf_map_lookup_elem(&witness, &zero);
	if (!w || data + 34 > (unsigned char *)data_end)
		return XDP_ABORTED;
	w->bytes += data_end - (void *)data;
	if (data[0] != 2 || ctx->data_meta != ctx->data)
		w->wrong++;
	data[0] = 0xee;

	__builtin_memcpy(&source, data + 26, sizeof(source));
	count = bpf_map_lookup_elem(&sources, &source);
	if (count)
		*count += 1;
	else
		bpf_map_update_elem(&sources, &source, &one, BPF_ANY);

	number = w->frames++;
	if (number % 2)
		bpf_xdp_adjust_head(ctx, number % 3 ? -20 : 12);
	if (number % 5 == 0)
		bpf_xdp_adjust_meta(ctx, -8);
	if (number % 7 == 0)
		bpf_xdp_adjust_tail(ctx, number % 4 ? -16 : 24);
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
