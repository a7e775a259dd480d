// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* All comparisons, signed and unsigned, of 64 and of 32 bits, with numbers and with each other. */
#include "common.h"

#define COMPARE(a, b)                                                                              \
	(((a) == (b)) | ((a) < (b)) << 1 | ((a) <= (b)) << 2 | ((a) > (b)) << 3 | ((a) >= (b)) << 4)

SEC("xdp")
int comparisons(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), other = word * 0x9e3779b9 >> (word & 15);
	__u64 wide = (__u64)word << 32 | other, second = (__u64)other << 32 | word;

	note(0, COMPARE(word, other));
	note(1, COMPARE((__s32)word, (__s32)other));
	note(2, COMPARE(wide, second));
	note(3, COMPARE((__s64)wide, (__s64)second));
	note(4, COMPARE((__s32)word, -7));
	note(5, COMPARE(word, 0x80000000));
	note(6, COMPARE((__s64)wide, -1LL));
	note(7, COMPARE((__u16)word, (__u16)other) + COMPARE((__s8)word, (__s8)other));
	if (word & other & 0x100)
		note(8, 1);
	if (wide & second & 1ULL << 40)
		note(9, 1);
	return (__s64)wide < (__s32)other ? XDP_PASS : XDP_DROP;
}
