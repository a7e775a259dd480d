// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* context_direct: each field of xdp_md, read through the pointer that the program was called with.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int each_field(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *data_meta = (void *)(long)ctx->data_meta;
	__u32 *mark = data_meta;

	if ((void *)(mark + 1) > data)
		return XDP_PASS;
	if (data + 14 > data_end)
		return XDP_DROP;
	return (*mark ^ ctx->ingress_ifindex ^ ctx->rx_queue_index) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp/devmap")
int on_the_way_out(struct xdp_md *ctx)
{
	return ctx->egress_ifindex == ctx->ingress_ifindex ? XDP_DROP : XDP_PASS;
}

SEC("xdp/cpumap")
int on_another_cpu(struct xdp_md *ctx)
{
	return ctx->rx_queue_index ? XDP_PASS : XDP_DROP;
}

/* Every access must stay one of its own. */
SEC("xdp")
int read_twice(struct xdp_md *ctx)
{
	volatile struct xdp_md *md = ctx;
	__u32 before = md->rx_queue_index;

	bpf_ktime_get_ns();
	return before == md->rx_queue_index ? XDP_PASS : XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
