// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Tail calls: taken, missing, out of range, and 33 deep. */
#include "common.h"

int first(struct xdp_md *ctx);
int second(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} table SEC(".maps") = {.values = {[0] = (void *)&first, [2] = (void *)&second}};

SEC("xdp")
int tail_calls(struct xdp_md *ctx)
{
	note(0, 1);
	bpf_tail_call(ctx, &table, frame_word(ctx) % 6);
	note(1, 1);
	return XDP_PASS;
}

SEC("xdp")
int first(struct xdp_md *ctx)
{
	note(2, ctx->data_end - ctx->data);
	return XDP_DROP;
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	note(3, 1);
	bpf_tail_call(ctx, &table, 2);
	note(4, 1);
	return XDP_TX;
}
