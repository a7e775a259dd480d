// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Numbers read from text: bases, prefixes, spaces, signs, letters that end them, what does not fit;
 * texts made of a frame's bits. */
#include "common.h"

static const char digits[] = "0123456789abcdefXx-+ \n7ABCDEFG\xa0z1";

static __always_inline void parse(__u32 where, const char *text, __u32 size, __u64 flags)
{
	unsigned long number = 7;
	long sign = 7;

	note(where, bpf_strtol(text, size, flags, &sign));
	note(where, sign);
	note(where, bpf_strtoul(text, size, flags, &number));
	note(where, number);
}

#define PARSE(where, text, flags) parse(where, text, sizeof(text) - 1, flags)

SEC("xdp")
int strtol(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), other = word * 0x9e3779b1;
	char text[12];

	PARSE(0, "123", 0);
	PARSE(1, "-123 4", 10);
	PARSE(2, "0x1fG", 0);
	PARSE(3, "0X1F", 16);
	PARSE(4, "0778", 0);
	PARSE(5, "0778", 8);
	PARSE(6, "0xg", 0);
	PARSE(7, "0x", 16);
	PARSE(8, " \t\n\v\f\r\xa0-42", 10);
	PARSE(9, "18446744073709551615", 10);
	PARSE(10, "18446744073709551616", 10);
	PARSE(11, "-9223372036854775808", 10);
	PARSE(12, "-9223372036854775809", 10);
	PARSE(13, "9223372036854775808", 10);
	PARSE(14, "ffffffffffffffff0", 16);
	PARSE(15, "12", 2);
	PARSE(16, "12", 1 << 5 | 10);
	PARSE(17, "+12", 10);
	PARSE(18, "-", 10);
	PARSE(19, "   ", 10);
	PARSE(20, "1\0002", 10);
	PARSE(21, "000000000000000000000000000000000000000000000000000000000000000012345", 10);
	PARSE(22, "--1", 0);
	PARSE(23, "-0x8000000000000000", 0);
	PARSE(24, "0", 0);
	PARSE(25, "deadbeefDEADBEEF", 16);
	for (int i = 0; i < 6; i++) {
		text[i] = digits[word >> 5 * i & 31];
		text[i + 6] = digits[other >> 5 * i & 31];
	}
	parse(26, text, sizeof(text), 0);
	parse(27, text, sizeof(text), 16);
	parse(28, text, (word & 7) + 1, word >> 3 & 31);
	parse(29, text + 6, 6, 10);
	return XDP_PASS;
}
