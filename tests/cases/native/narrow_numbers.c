// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Numbers of 8 and 16 bits: what overflows, what extends its sign, what is truncated on the way. */
#include "common.h"

SEC("xdp")
int narrow_numbers(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u8 byte = word;
	__u16 half = word >> 8;
	__s8 small = word >> 16;
	__s16 middle = word >> 12;
	__s32 number = word;

	note(0, (__u8)(byte + 200));
	note(1, (__u8)(byte * byte));
	note(2, (__u16)(half << 5));
	note(3, small * middle);
	note(4, (__s64)small + half);
	note(5, (__s64)(__s8)half * number);
	note(6, (__s16)(middle + 0x7fff));
	note(7, -byte);
	note(8, ~small);
	note(9, (__u32)small >> 4);
	note(10, (__u64)(__s64)number >> 4);
	note(11, !byte + !!half);
	return XDP_PASS;
}
