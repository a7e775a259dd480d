// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Tail calls: a program that calls itself until the 34th call fails, one by one through a chain. */
#include "common.h"

int again(struct xdp_md *ctx);
int ping(struct xdp_md *ctx);
int pong(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 3);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} table SEC(".maps") = {.values = {(void *)&again, (void *)&ping, (void *)&pong}};

__u64 depth;

SEC("xdp")
int tail_call_limit(struct xdp_md *ctx)
{
	depth = 0;
	bpf_tail_call(ctx, &table, frame_word(ctx) % 4);
	return XDP_PASS;
}

SEC("xdp")
int again(struct xdp_md *ctx)
{
	depth++;
	bpf_tail_call(ctx, &table, 0);
	note(0, depth);
	return XDP_DROP;
}

SEC("xdp")
int ping(struct xdp_md *ctx)
{
	depth++;
	if (bpf_xdp_adjust_head(ctx, -1))
		note(1, depth);
	bpf_tail_call(ctx, &table, 2);
	note(2, depth);
	return XDP_TX;
}

SEC("xdp")
int pong(struct xdp_md *ctx)
{
	depth++;
	if (depth < 20)
		bpf_tail_call(ctx, &table, 1);
	note(3, depth);
	return XDP_PASS;
}
