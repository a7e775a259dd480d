// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* context_spilled: more live values than registers, so that the context waits on the stack, also
 * around loops. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KEEP(x) asm volatile("" : "+r"(x))

SEC("xdp")
int many_values(struct xdp_md *ctx)
{
	__u64 a = bpf_get_prandom_u32(), b = bpf_ktime_get_ns(), c = bpf_get_smp_processor_id();
	__u64 d = bpf_get_prandom_u32(), e = bpf_ktime_get_ns(), f = bpf_get_prandom_u32();
	void *data, *data_end;

	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + 1 > data_end)
		return XDP_DROP;
	a ^= *(__u8 *)data;
	bpf_printk("%llu", a);
	KEEP(a);
	KEEP(b);
	KEEP(c);
	KEEP(d);
	KEEP(e);
	KEEP(f);
	return (a ^ b ^ c ^ d ^ e ^ f ^ ctx->rx_queue_index) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int around_a_loop(struct xdp_md *ctx)
{
	__u64 sum = 0, step = bpf_get_prandom_u32(), limit = bpf_get_prandom_u32() & 7, seen = 0;
	__u32 i;

	for (i = 0; i < 16; i++) {
		if (i > limit)
			break;
		sum += bpf_get_prandom_u32() * step;
		if (sum & 1)
			sum += ctx->ingress_ifindex;
		else
			seen |= bpf_ktime_get_ns();
		KEEP(step);
		KEEP(limit);
		KEEP(seen);
		KEEP(sum);
	}
	return (sum ^ seen ^ ctx->rx_queue_index) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int either_way(struct xdp_md *ctx)
{
	struct xdp_md *md = ctx;

	if (ctx->rx_queue_index & 1) {
		if (bpf_xdp_adjust_head(ctx, 4))
			return XDP_ABORTED;
	} else {
		md = 0;
		KEEP(md);
	}
	if (!md)
		return XDP_PASS;
	switch (md->ingress_ifindex) {
	case 1:
		return md->data == md->data_end ? XDP_DROP : XDP_PASS;
	case 5:
		bpf_xdp_adjust_tail(md, -1);
		return md->data_meta != md->data ? XDP_DROP : XDP_PASS;
	}
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
