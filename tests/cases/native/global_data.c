// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* .data, .bss and .rodata: numbers, arrays, and tables of constants. */
#include "common.h"

const volatile __u32 modulus = 13;
const volatile __u8 table[8] = {3, 1, 4, 1, 5, 9, 2, 6};
__u64 counters[16];
__u32 preset[4] = {1, 2, 3, 4};
static __u32 hidden = 77;

SEC("xdp")
int global_data(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	counters[word % modulus % 16] += table[word & 7];
	preset[word & 3] ^= word;
	hidden += word;
	note(0, hidden);
	return preset[word & 3] & 1 ? XDP_PASS : XDP_DROP;
}
