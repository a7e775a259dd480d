// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Signed quotients and remainders, which BPF has from v4 on (-mcpu=v4): divisors 0 and -1, the
 * least number; also loads and moves that extend the sign. */
#include "common.h"

__s8 small = -3;
__s16 middle = -300;

SEC("xdp")
int signed_division(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__s32 number = word & 0x100 ? 0x80000000 : word, divisor = (__s32)(word >> 9 & 7) - 2;
	__s64 wide = word & 0x1000 ? 1LL << 63 : (__s64)number << 20, by = divisor;

	note(0, number / divisor);
	note(1, number % divisor);
	note(2, wide / by);
	note(3, wide % by);
	note(4, (__s32)word / -10);
	note(5, (__s32)word % 7);
	note(6, wide / small + middle);
	note(7, (__s8)word * (__s16)(word >> 8));
	small -= word & 1;
	middle += word;
	return small % 5 < 0 ? XDP_PASS : XDP_DROP;
}
