// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_store_bytes: the last bytes of a frame, one byte too many, offsets far out. */
#include "common.h"

SEC("xdp")
int store_bytes_limits(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), length = bpf_xdp_get_buff_len(ctx), size = (word & 31) + 1;
	__u8 buffer[32];

	__builtin_memset(buffer, word >> 8, sizeof(buffer));
	note(0, bpf_xdp_store_bytes(ctx, length - size, buffer, size));
	note(1, bpf_xdp_store_bytes(ctx, length - size + 1, buffer, size));
	note(2, bpf_xdp_store_bytes(ctx, 0x10000, buffer, size));
	note(3, bpf_xdp_store_bytes(ctx, -size, buffer, size));
	note(4, bpf_xdp_store_bytes(ctx, word >> 16 & 0x7ff, buffer, 32));
	return XDP_TX;
}
