// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_adjust_tail: what grows back after a cut is zero; the edges of tailroom and ETH_HLEN. */
#include "common.h"

SEC("xdp")
int adjust_tail_zeroes(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), length = bpf_xdp_get_buff_len(ctx);
	int room = 4096 - 320 - 256 - (int)length;

	note(0, bpf_xdp_adjust_tail(ctx, -(int)(word % 128)));
	note(1, bpf_xdp_adjust_tail(ctx, word >> 7 & 127));
	switch (word >> 16 & 7) {
	case 0:
		note(2, bpf_xdp_adjust_tail(ctx, room));
		break;
	case 1:
		note(3, bpf_xdp_adjust_tail(ctx, room + 130));
		break;
	case 2:
		note(4, bpf_xdp_adjust_tail(ctx, -(int)bpf_xdp_get_buff_len(ctx) + 14));
		break;
	case 3:
		note(5, bpf_xdp_adjust_tail(ctx, -(int)bpf_xdp_get_buff_len(ctx) + 13));
		break;
	case 4:
		note(6, bpf_xdp_adjust_tail(ctx, 0x7fffffff));
		break;
	case 5:
		note(7, bpf_xdp_adjust_tail(ctx, 0x80000000));
		break;
	default:
		break;
	}
	note(8, ctx->data_end - ctx->data);
	return XDP_TX;
}
