// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_load_bytes and bpf_xdp_store_bytes in and out of the frame. */
#include "common.h"

SEC("xdp")
int load_store_bytes(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), offset = word % 1600, len = (word >> 16) & 15;
	__u8 buffer[32] = {};
	long error;

	error = bpf_xdp_load_bytes(ctx, offset, buffer, len + 1);
	note(0, error);
	note(1, buffer[0] + buffer[16]);
	buffer[0] ^= 0xff;
	note(2, bpf_xdp_store_bytes(ctx, (word >> 4) % 1600, buffer, len + 1));
	return XDP_TX;
}
