// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_loop in callbacks of bpf_loop, without a context, and with a frame that is written to. */
#include "common.h"

struct outer {
	struct xdp_md *ctx;
	__u64 sum;
	__u32 rows, columns;
};

static long inner(__u32 index, __u64 *sum)
{
	*sum = *sum * 3 + index;
	return *sum % 17 == 0;
}

static long outer(__u32 index, struct outer *outer)
{
	void *data_end = (void *)(long)outer->ctx->data_end;
	__u8 *data = (void *)(long)outer->ctx->data + (index & 63);
	__u64 sum = outer->sum;

	note(0, bpf_loop(outer->columns, inner, &sum, 0));
	outer->sum ^= sum;
	if ((void *)(data + 1) > data_end)
		return 1;
	*data ^= sum;
	return 0;
}

static long nothing(__u32 index, void *unused)
{
	return index == 5;
}

SEC("xdp")
int loop_nested(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct outer state = {.ctx = ctx, .columns = word >> 8 & 31};

	note(1, bpf_loop(word & 31, outer, &state, 0));
	note(2, state.sum);
	note(3, bpf_loop(word & 7, nothing, NULL, 0));
	return XDP_TX;
}
