// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_load_bytes: offsets at, beyond and far beyond the end; what does not fit is not read. */
#include "common.h"

SEC("xdp")
int load_bytes_limits(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), length = bpf_xdp_get_buff_len(ctx), size = (word & 63) + 1;
	__u8 buffer[64] = {1, 2, 3};

	note(0, bpf_xdp_load_bytes(ctx, length - size, buffer, size));
	note(1, buffer[size - 1]);
	note(2, bpf_xdp_load_bytes(ctx, length - size + 1, buffer, size));
	note(3, bpf_xdp_load_bytes(ctx, length, buffer, 1));
	note(4, bpf_xdp_load_bytes(ctx, 0xffff, buffer, size));
	note(5, bpf_xdp_load_bytes(ctx, 0x10000, buffer, size));
	note(6, bpf_xdp_load_bytes(ctx, -1, buffer, size));
	note(7, bpf_xdp_load_bytes(ctx, word, buffer, 64));
	note(8, buffer[0] | buffer[13] << 8 | buffer[63] << 16);
	return XDP_PASS;
}
