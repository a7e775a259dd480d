// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Head, metadata and tail moved one after the other: metadata travels with the head. */
#include "common.h"

SEC("xdp")
int adjust_sequence(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	void *data, *meta;

	note(0, bpf_xdp_adjust_meta(ctx, -(int)(word % 9 * 4)));
	data = (void *)(long)ctx->data;
	meta = (void *)(long)ctx->data_meta;
	if (meta + 4 <= data)
		*(__u32 *)meta = word;
	note(1, bpf_xdp_adjust_head(ctx, (int)(word >> 8 & 63) - 40));
	data = (void *)(long)ctx->data;
	meta = (void *)(long)ctx->data_meta;
	note(2, data - meta);
	if (meta + 4 <= data)
		note(3, *(__u32 *)meta == word);
	note(4, bpf_xdp_adjust_tail(ctx, (int)(word >> 14 & 255) - 100));
	note(5, bpf_xdp_adjust_meta(ctx, (int)(word >> 22 & 15) * 4 - 32));
	note(6, bpf_xdp_adjust_head(ctx, -(int)(word >> 26)));
	note(7, bpf_xdp_get_buff_len(ctx));
	return word & 1 ? XDP_TX : XDP_PASS;
}
