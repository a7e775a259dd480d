// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A dynptr of a frame that is shortened, lengthened and moved afterwards: it keeps its size, and
 * what of it the frame has lost is an error or left out. */
#include "kfuncs.h"

SEC("xdp")
int dynptr_frame_moves(struct xdp_md *ctx)
{
	__u8 buffer[20] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, large[40] = {}, *bytes;
	__u32 word = frame_word(ctx), offset = word >> 8 & 63;
	struct bpf_dynptr frame, other;

	bpf_dynptr_from_xdp(ctx, 0, &frame);
	bpf_dynptr_from_xdp(ctx, 0, &other);
	note(0, bpf_xdp_adjust_tail(ctx, -(int)(word & 63)));
	note(1, bpf_xdp_adjust_head(ctx, (int)(word >> 6 & 15) - 7));
	note(2, bpf_dynptr_size(&frame));
	bytes = bpf_dynptr_slice(&frame, offset, buffer, 20);
	note(3, bytes ? bytes[0] | bytes[9] << 8 | bytes[19] << 16 : 1);
	bytes = bpf_dynptr_slice(&frame, offset, NULL, 20);
	note(4, bytes ? bytes[19] : 2);
	note(5, bpf_dynptr_read(large, sizeof(large), &frame, offset, 0));
	note(6, bpf_dynptr_write(&frame, offset, "0123456789", 10, 0));
	note(7, bpf_dynptr_copy(&frame, offset, &other, word >> 14 & 31, 17));
	note(8, bpf_dynptr_copy(&frame, 0, &other, 0, bpf_dynptr_size(&other)));
	note(9, bpf_dynptr_memset(&frame, offset, word >> 20 & 31, 0x77));
	note(10, bpf_dynptr_memset(&frame, 0, bpf_dynptr_size(&frame), word));
	note(11, large[0] | large[20] << 8 | large[39] << 16);
	return XDP_TX;
}
