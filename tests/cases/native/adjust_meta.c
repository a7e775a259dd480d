// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_adjust_meta: sizes that are allowed and that are not, written and read. */
#include "common.h"

SEC("xdp")
int adjust_meta(struct xdp_md *ctx)
{
	__s32 delta = 8 - (__s32)(frame_word(ctx) % 300);
	void *data, *meta;
	long error = bpf_xdp_adjust_meta(ctx, delta);

	note(0, error);
	data = (void *)(long)ctx->data;
	meta = (void *)(long)ctx->data_meta;
	note(1, data - meta);
	if (meta + 4 <= data)
		*(__u32 *)meta = 0x12345678;
	return XDP_PASS;
}
