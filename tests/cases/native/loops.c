// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_loop: counts, early ends, bad flags, and a callback that reads the frame through its context.
 */
#include "common.h"

struct state {
	struct xdp_md *ctx;
	__u32 sum, stop;
};

static long body(__u32 index, struct state *state)
{
	void *data_end = (void *)(long)state->ctx->data_end;
	__u8 *data = (void *)(long)state->ctx->data;

	data += index & 0xff;
	if ((void *)(data + 1) > data_end)
		return 1;
	state->sum += *data;
	return index == state->stop;
}

SEC("xdp")
int loops(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct state state = {.ctx = ctx, .stop = word % 200};

	note(0, bpf_loop(word % 300, body, &state, 0));
	note(1, state.sum);
	note(2, bpf_loop(1 << 24, body, &state, 0));
	return XDP_PASS;
}
