/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A frame's 15th byte is its verdict, and it is counted; redirecting nothing, the program needs but
 * a frame and a map. With MOVES it takes four bytes off the end of what it transmits.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("xdp")
int orders(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 verdict, slot;
	__u64 *count;

	if (data + 16 > end)
		return XDP_ABORTED;
	verdict = data[14];
	slot = verdict & 7;
	count = bpf_map_lookup_elem(&counts, &slot);
	if (count)
		*count += 1;
	data[15] = 0xaa;
#ifdef MOVES
	if (verdict == XDP_TX && bpf_xdp_adjust_tail(ctx, -4))
		return XDP_ABORTED;
#endif
	return verdict;
}

char _license[] SEC("license") = "Dual MIT/GPL";
