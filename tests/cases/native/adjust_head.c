// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_adjust_head by all that frames and headroom allow, and by more. */
#include "common.h"

SEC("xdp")
int adjust_head(struct xdp_md *ctx)
{
	__s32 delta = (__s32)(frame_word(ctx) % 600) - 300;
	void *data, *data_end;
	long error = bpf_xdp_adjust_head(ctx, delta);

	note(0, error);
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	note(1, data_end - data);
	if (data + 6 > data_end)
		return XDP_DROP;
	__builtin_memset(data, 0xa5, 6);
	return error ? XDP_PASS : XDP_TX;
}
