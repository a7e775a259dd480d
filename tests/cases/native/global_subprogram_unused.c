// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Global subprograms with the context that no program calls: the kernel never sees them. */
#include "common.h"

__attribute__((noinline)) int unused(struct xdp_md *ctx, int offset)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;

	offset &= 63;
	if ((void *)(data + offset + 1) > data_end)
		return -1;
	return data[offset];
}

__attribute__((noinline)) int unused_caller(struct xdp_md *ctx)
{
	return unused(ctx, ctx->rx_queue_index) + unused(ctx, 3);
}

SEC("xdp")
int global_subprogram_unused(struct xdp_md *ctx)
{
	note(1, frame_word(ctx));
	return XDP_PASS;
}
