// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * sections: programs under the section names of several ages, of another type, to be loaded only if
 * named, and in a prog_array from the start.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

int on_demand(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(struct xdp_md *));
} stages SEC(".maps") = {
    .values = {[2] = &on_demand},
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, __u32);
} pinned_by_name SEC(".maps");

SEC("xdp_router")
int older(struct xdp_md *ctx)
{
	__u32 key = ctx->rx_queue_index;

	bpf_tail_call(ctx, &stages, 2);
	return bpf_map_lookup_elem(&pinned_by_name, &key) ? XDP_DROP : XDP_ABORTED;
}

SEC("xdp")
int newer(struct xdp_md *ctx)
{
	return ctx->rx_queue_index ? XDP_DROP : XDP_PASS;
}

SEC("?xdp")
int on_demand(struct xdp_md *ctx)
{
	return ctx->rx_queue_index ? XDP_DROP : XDP_TX;
}

SEC("?xdp.frags")
int with_frags(struct xdp_md *ctx)
{
	return ctx->rx_queue_index ? XDP_DROP : XDP_PASS;
}

SEC("tc")
int classifier(struct __sk_buff *skb)
{
	return skb->len ? TC_ACT_OK : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual MIT/GPL";
