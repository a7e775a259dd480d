// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Inline assembly: arithmetic of both widths, comparisons that jump to labels of C, operands that
 * are numbers, narrow or cut; bounds that the compiler shall not reason about. */
#include "common.h"

#define change(variable, text, ...) asm volatile(text : "+r"(variable) : __VA_ARGS__)
/* bpf_cmp_likely() of the kernel's bpf_experimental.h */
#define compare(left, operator, constraint, right, otherwise)                                      \
	({                                                                                         \
		__label__ l_true;                                                                  \
		bool ret = otherwise;                                                              \
		asm volatile goto(                                                                 \
		    "if %[lhs] " operator" %[rhs] goto %l[l_true]" ::[lhs] "r"((short)left),       \
		    [rhs] constraint(right)::l_true);                                              \
		ret = !otherwise;                                                                  \
	l_true:                                                                                    \
		ret;                                                                               \
	})

static const __u8 table[16] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};

SEC("xdp")
int assembly(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), index = word, bits = 0;
	__u64 wide = (__u64)word << 29 | word, other = wide ^ 0x123456789abcdefULL;
	__s64 sum = -(__s64)word;

	change(index, "%0 &= 15");
	note(0, table[index & 31 ? index : 0]);
	change(wide, "%0 += %1", "r"(other));
	change(wide, "%0 -= %1", "ri"(77));
	change(wide, "%0 *= %1", "r"(word));
	change(wide, "%0 ^= %1; %0 |= 0x100", "i"(-5));
	note(1, wide);
	change(wide, "%0 <<= 3\n%0 >>= %1", "r"(word & 31));
	note(2, wide);
	change(sum, "%0 s>>= 5");
	change(sum, "%0 = -%0");
	note(3, sum);
	change(other, "%0 /= %1", "r"(wide & 0xff));
	change(wide, "%0 %%= %1", "r"(word & 0xf0));
	note(4, other + wide);
	asm volatile("%0 += %1; %0 *= 3" : "+w"(word) : "w"(index));
	note(5, word);
	asm volatile("%0 >>= 7; %0 s>>= 1; %0 -= 9" : "+w"(word));
	note(6, word);
	change(wide, "%0 = be16 %0");
	change(other, "%0 = be64 %0");
	change(sum, "%0 = le32 %0");
	note(7, wide + other * 3 + sum * 7);
	asm volatile("%[out] = %[in]; %[out] += 1" : [out] "=&r"(wide) : [in] "r"(other));
	note(8, wide);
	asm volatile("%0 = 0x123456789abcdef ll" : "=r"(wide));
	note(9, wide);
	wide = other >> (word & 31);
	bits |= compare(wide, ">", "ri", 1000, true) << 0;
	bits |= compare(wide, "<=", "r", other, false) << 1;
	bits |= compare(word, "==", "ri", 0x1234, false) << 2;
	bits |= compare(word, "!=", "r", index, true) << 3;
	bits |= compare(wide, "s<", "r", other, false) << 4;
	bits |= compare(wide, "s>=", "ri", -1, false) << 5;
	bits |= compare(index, "&", "ri", 4, true) << 6;
	note(10, bits);
	return XDP_PASS;
}
