// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Numbers of 128 bits made of 64: sums with carry, products by halves, rotations. */
#include "common.h"

struct wide {
	__u64 low, high;
};

static __always_inline struct wide multiply(__u64 a, __u64 b)
{
	__u64 a0 = (__u32)a, a1 = a >> 32, b0 = (__u32)b, b1 = b >> 32;
	__u64 low = a0 * b0, middle = a1 * b0 + (low >> 32), other = a0 * b1 + (__u32)middle;

	return (struct wide){other << 32 | (__u32)low, a1 * b1 + (middle >> 32) + (other >> 32)};
}

SEC("xdp")
int wide_arithmetic(struct xdp_md *ctx)
{
	__u64 word = frame_word(ctx) * 0xd6e8feb86659fd93ULL, other = word * word + 1;
	struct wide product = multiply(word, other), sum;

	sum.low = product.low + word;
	sum.high = product.high + other + (sum.low < word);
	note(0, product.low);
	note(1, product.high);
	note(2, sum.low ^ sum.high);
	note(3, word << 13 | word >> 51);
	note(4, (__u32)word << 7 | (__u32)word >> 25);
	note(5, (unsigned __int128)word + ((unsigned __int128)other << 64) >> 60);
	return XDP_PASS;
}
