// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_adjust_tail: frames shrink to nothing and grow into the tailroom, which is zeroed. */
#include "common.h"

SEC("xdp")
int adjust_tail(struct xdp_md *ctx)
{
	__s32 delta = (__s32)(frame_word(ctx) % 4000) - 1500;

	note(0, bpf_xdp_adjust_tail(ctx, delta));
	note(1, bpf_xdp_get_buff_len(ctx));
	return XDP_TX;
}
