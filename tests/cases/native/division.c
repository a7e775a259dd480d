// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Quotients and remainders: by variables, by constants, of 32 and 64 bits. Signed division exists
 * from BPF v4 on; here it is made of unsigned division, as sources for older ones do. */
#include "common.h"

static __always_inline __s64 signed_quotient(__s64 dividend, __s64 divisor)
{
	__u64 quotient = (__u64)(dividend < 0 ? -dividend : dividend) /
			 (__u64)(divisor < 0 ? -divisor : divisor);

	return (dividend < 0) == (divisor < 0) ? quotient : -quotient;
}

SEC("xdp")
int division(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), divisor = (word >> 20) + 1;
	__u64 wide = (__u64)word * word;

	note(0, word / divisor);
	note(1, word % divisor);
	note(2, wide / divisor);
	note(3, wide % (wide >> 40 | 1));
	note(4, word / 10 + word % 10);
	note(5, wide / 1000000007 + wide % 1000000007);
	note(6, (__u8)word / 7);
	note(7, signed_quotient((__s32)word, -(__s64)divisor));
	note(8, (__s32)word / 16);
	return XDP_PASS;
}
