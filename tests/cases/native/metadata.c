// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What lies in front of the frame: read, written, and gone when the program says so. */
#include "common.h"

SEC("xdp")
int metadata(struct xdp_md *ctx)
{
	void *meta = (void *)(long)ctx->data_meta;
	void *data = (void *)(long)ctx->data;
	__u32 word = frame_word(ctx), sum = 0;

	note(0, data - meta);
	for (int i = 0; i < 8; i++) {
		if (meta + i * 4 + 4 > data)
			break;
		sum += ((__u32 *)meta)[i];
		((__u32 *)meta)[i] ^= word;
	}
	note(1, sum);
	if (word & 1)
		note(2, bpf_xdp_adjust_meta(ctx, data - meta));
	else if (word & 2)
		note(3, bpf_xdp_adjust_meta(ctx, -(int)(word >> 8 & 7) * 4));
	note(4, ctx->data - ctx->data_meta);
	return XDP_PASS;
}
