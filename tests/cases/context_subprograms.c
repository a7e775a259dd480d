// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* context_subprograms: the context as an argument, in memory that an argument points to, and as a
 * result. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KEEP(x) asm volatile("" : "+r"(x))

struct holder {
	__u64 count;
	struct xdp_md *ctx;
};

static __noinline int queue_of(struct xdp_md *ctx)
{
	return ctx->rx_queue_index;
}

static __noinline int sum_of(__u64 seed, struct xdp_md *ctx)
{
	int queue = queue_of(ctx);

	KEEP(seed);
	return queue + ctx->ingress_ifindex + seed;
}

static __noinline struct xdp_md *after_a_call(struct xdp_md *ctx)
{
	bpf_ktime_get_ns();
	return ctx;
}

static __noinline int through_memory(struct holder *holder)
{
	KEEP(holder);
	holder->count++;
	return holder->ctx->data == holder->ctx->data_end;
}

static __noinline void fill(struct holder *holder, struct xdp_md *ctx)
{
	KEEP(holder);
	holder->ctx = ctx;
}

/* Not static: the verifier knows the type of its argument, and nothing of its callers. */
__noinline int global_one(struct xdp_md *ctx, __u32 seed)
{
	return ctx->ingress_ifindex ^ seed;
}

/* Reached by a program of another type alone: its context is no xdp_md. */
static __noinline int of_a_packet(struct __sk_buff *skb)
{
	return skb->len + skb->mark;
}

SEC("xdp")
int arguments(struct xdp_md *ctx)
{
	return sum_of(bpf_ktime_get_ns(), ctx) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp.frags")
int results(struct xdp_md *ctx)
{
	return after_a_call(ctx)->data_meta == ctx->data ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int memory(struct xdp_md *ctx)
{
	struct holder holder = {.ctx = ctx};

	return through_memory(&holder) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int filled_by_another(struct xdp_md *ctx)
{
	struct holder holder = {};

	fill(&holder, ctx);
	if (!holder.ctx)
		return XDP_ABORTED;
	return holder.ctx->rx_queue_index ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int global(struct xdp_md *ctx)
{
	return global_one(ctx, bpf_get_prandom_u32()) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("tc")
int classify(struct __sk_buff *skb)
{
	return of_a_packet(skb) & 1;
}

char _license[] SEC("license") = "Dual MIT/GPL";
