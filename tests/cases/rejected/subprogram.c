// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* subprogram: the defect is not in the program but two calls away, behind correct functions. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} totals SEC(".maps");

static __attribute__((noinline)) int right(__u32 number)
{
	return number * 3 % 7;
}

static __attribute__((noinline)) __u64 wrong(__u32 key)
{
	__u64 *total = bpf_map_lookup_elem(&totals, &key);

	return *total;
}

static __attribute__((noinline)) int between(__u32 number)
{
	return wrong(number) + right(number + 1);
}

SEC("xdp")
int fine(struct xdp_md *ctx)
{
	return right(ctx->rx_queue_index) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int subprogram(struct xdp_md *ctx)
{
	return right(ctx->rx_queue_index) + between(ctx->ingress_ifindex) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
