// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Instructions of cpu v4: sign-extending moves and loads, byte swaps in registers, signed
 * quotients, immediate stores, and a jump further than 16 bits. */
#include "common.h"

struct mixed {
	__s8 byte;
	__s16 half;
	__s32 word;
} mixed = {-3, -300, -70000};

SEC("xdp")
int cpu_v4(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__s64 wide = (__s64)((__u64)word << 32 | ~word);
	__s32 divisor = (__s32)word >> 20 | 1;

	note(0, (__s8)word);
	note(1, (__s16)word);
	note(2, (__s64)(__s32)word);
	note(3, (__s32)(__s8)(word >> 8));
	note(4, mixed.byte + (__s64)mixed.half * mixed.word);
	note(5, wide / divisor);
	note(6, wide % divisor);
	note(7, (__s32)word / divisor);
	note(8, (__s32)word % (__s32)(divisor + 3 | 1));
	note(9, __builtin_bswap16(word));
	note(10, __builtin_bswap32(word));
	note(11, __builtin_bswap64(wide));
	mixed.byte = word;
	mixed.half = word >> 3;
	mixed.word = word >> 7;
	return (__s8)word < 0 ? XDP_DROP : XDP_PASS;
}
