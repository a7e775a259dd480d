// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_adjust_head at the edges: the whole headroom, a byte more, ETH_HLEN left, a byte less. */
#include "common.h"

#define ROOM (256 - 40) /* XDP_PACKET_HEADROOM - sizeof(struct xdp_frame) */

SEC("xdp")
int adjust_head_limits(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	int length = ctx->data_end - ctx->data;

	switch (word % 8) {
	case 0:
		note(0, bpf_xdp_adjust_head(ctx, -ROOM));
		break;
	case 1:
		note(1, bpf_xdp_adjust_head(ctx, -ROOM - 1));
		break;
	case 2:
		note(2, bpf_xdp_adjust_head(ctx, length - 14));
		break;
	case 3:
		note(3, bpf_xdp_adjust_head(ctx, length - 13));
		break;
	case 4:
		note(4, bpf_xdp_adjust_head(ctx, 0x7fffffff));
		break;
	case 5:
		note(5, bpf_xdp_adjust_head(ctx, 0x80000000));
		break;
	case 6:
		note(6, bpf_xdp_adjust_head(ctx, 0));
		break;
	default:
		note(7, bpf_xdp_adjust_head(ctx, length));
	}
	note(8, ctx->data_end - ctx->data);
	return XDP_TX;
}
