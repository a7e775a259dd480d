// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_adjust_meta: alignment, the most that fits, more than that, behind the data. */
#include "common.h"

SEC("xdp")
int adjust_meta_limits(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	void *data, *meta;

	if (word & 0x100)
		bpf_xdp_adjust_head(ctx, -(int)(word >> 9 & 127));
	note(0, bpf_xdp_adjust_meta(ctx, -(int)(word % 8)));
	note(1, bpf_xdp_adjust_meta(ctx, -252));
	note(2, bpf_xdp_adjust_meta(ctx, -(int)(word >> 16 & 63) * 4));
	note(3, bpf_xdp_adjust_meta(ctx, -256));
	note(4, bpf_xdp_adjust_meta(ctx, 0x80000000));
	note(5, bpf_xdp_adjust_meta(ctx, word >> 24 & 31));
	data = (void *)(long)ctx->data;
	meta = (void *)(long)ctx->data_meta;
	note(6, data - meta);
	if (meta + 32 <= data)
		__builtin_memset(meta, word, 32);
	return XDP_PASS;
}
