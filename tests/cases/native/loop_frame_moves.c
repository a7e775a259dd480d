// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_loop whose callback moves the frame's start: its pointers are read anew in every round. */
#include "common.h"

struct state {
	struct xdp_md *ctx;
	__u64 sum;
	int step;
};

static long shift(__u32 index, struct state *state)
{
	void *data_end, *data;

	if (bpf_xdp_adjust_head(state->ctx, state->step))
		return 1;
	data = (void *)(long)state->ctx->data;
	data_end = (void *)(long)state->ctx->data_end;
	if (data + 14 > data_end)
		return 1;
	state->sum = state->sum * 7 + *(__u8 *)data;
	*(__u8 *)(data + 13) = index;
	return 0;
}

SEC("xdp")
int loop_frame_moves(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct state state = {.ctx = ctx, .step = (int)(word & 31) - 16};

	note(0, bpf_loop(word >> 8 & 31, shift, &state, 0));
	note(1, state.sum);
	return XDP_TX;
}
