// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Divisions by zero and their like, shifts, signs, byte swaps: where C leaves off and BPF goes on.
 */
#include "common.h"

SEC("xdp")
int arithmetic(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u64 wide = (__u64)word << 17 | word;
	__u32 divisor = word >> 24 & 3;

	note(0, divisor ? word / divisor : 1);
	note(1, divisor ? wide % divisor : 2);
	note(2, word >> (word & 31));
	note(3, wide << (word & 63));
	note(4, (__s64)wide >> (word & 63));
	note(5, (__s32)word >> (word & 31));
	note(6, __builtin_bswap16(word));
	note(7, __builtin_bswap32(word));
	note(8, __builtin_bswap64(wide));
	note(9, (__s32)word < -5);
	note(10, (__s8)word);
	note(11, (__s16)word * (__s64)(__s32)word);
	note(12, word * 0x9e3779b97f4a7c15ULL);
	return XDP_PASS;
}
