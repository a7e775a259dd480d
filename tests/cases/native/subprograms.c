// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Static and global subprograms that get the context, numbers, and pointers to the stack. */
#include "common.h"

struct pair {
	__u32 one, other;
};

static __attribute__((noinline)) __u32 length(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

__attribute__((noinline)) int type_of(struct xdp_md *ctx, int fallback)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > data_end)
		return fallback;
	return eth->h_proto;
}

static __attribute__((noinline)) void swap(struct pair *pair)
{
	__u32 one = pair->one;

	pair->one = pair->other;
	pair->other = one;
}

SEC("xdp")
int subprograms(struct xdp_md *ctx)
{
	struct pair pair = {length(ctx), type_of(ctx, 7)};

	swap(&pair);
	note(0, pair.one);
	note(1, pair.other);
	return pair.one == bpf_htons(ETH_P_IP) ? XDP_TX : XDP_PASS;
}
