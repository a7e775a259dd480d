// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A program for frames of several buffers, which sees those of one like any other program. */
#include "common.h"

SEC("xdp.frags")
int frags_program(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), length = ctx->data_end - ctx->data;
	__u8 bytes[16];

	note(0, bpf_xdp_get_buff_len(ctx) == length);
	note(1, bpf_xdp_load_bytes(ctx, word & 127, bytes, sizeof(bytes)));
	note(2, bpf_xdp_adjust_tail(ctx, (int)(word >> 8 & 63) - 32));
	note(3, bpf_xdp_adjust_head(ctx, (int)(word >> 14 & 31) - 16));
	note(4, bpf_xdp_get_buff_len(ctx));
	return XDP_TX;
}
