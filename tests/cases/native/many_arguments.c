// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Static subprograms with all five arguments, results of 64 bits, and none; eight calls deep. */
#include "common.h"

static __noinline __u64 five(__u64 one, __u32 two, __u16 three, __u8 four, __s64 five)
{
	return one ^ two << 1 ^ three << 2 ^ four << 3 ^ five;
}

static __noinline void store(__u64 *to, __u64 value)
{
	*to = value;
}

#define LEVEL(name, next)                                                                          \
	static __noinline __u64 name(__u64 number, __u32 *calls)                                   \
	{                                                                                          \
		*calls += 1;                                                                       \
		return number & 1 ? next(number * 3 + 1, calls) : number;                          \
	}

static __noinline __u64 level0(__u64 number, __u32 *calls)
{
	*calls += 1;
	return number;
}

LEVEL(level1, level0)
LEVEL(level2, level1)
LEVEL(level3, level2)
LEVEL(level4, level3)
LEVEL(level5, level4)

SEC("xdp")
int many_arguments(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), calls = 0;
	__u64 wide;

	store(&wide, five((__u64)word << 32, word, word, word >> 8, -(__s64)word));
	note(0, wide);
	note(1, level5(word | 1, &calls));
	note(2, level3(word << 1, &calls));
	note(3, calls);
	return XDP_PASS;
}
