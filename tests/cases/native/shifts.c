// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Shifts by variables below the width, arithmetic and logical, of all widths. */
#include "common.h"

SEC("xdp")
int shifts(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), by = word & 31;
	__u64 wide = (__u64)word << 32 | ~word;

	note(0, word << by);
	note(1, word >> by);
	note(2, (__s32)word >> by);
	note(3, wide << (word >> 8 & 63));
	note(4, wide >> (word >> 8 & 63));
	note(5, (__s64)wide >> (word >> 8 & 63));
	note(6, (__u16)word >> (word & 15));
	note(7, (__s16)word >> (word & 15));
	note(8, (__s8)word << (word & 7));
	note(9, (1ULL << (word & 63)) - 1);
	note(10, 1U << by | 1U << (31 - by));
	return XDP_PASS;
}
