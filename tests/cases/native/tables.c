// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* switch over many values: jump tables as BPF has them (none), and tables of constants in .rodata.
 */
#include "common.h"

static const __u16 primes[16] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53};
static const struct {
	__u8 kind;
	__u32 weight;
} rules[4] = {{1, 100}, {2, 200000}, {3, 7}, {4, 0xffffffff}};

static __always_inline __u32 cost(__u32 kind)
{
	switch (kind) {
	case 0:
		return 17;
	case 1:
		return 4;
	case 2:
		return 99;
	case 3:
		return 1023;
	case 4:
		return 5;
	case 5:
		return 77777;
	case 6:
		return 0;
	case 250:
		return 8;
	default:
		return 1;
	}
}

SEC("xdp")
int tables(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(0, cost(word & 7));
	note(1, cost(word >> 3 & 0xff));
	note(2, primes[word >> 8 & 15]);
	note(3, rules[word >> 12 & 3].weight + rules[word >> 14 & 3].kind);
	switch (word >> 16 & 3) {
	case 0:
		return XDP_DROP;
	case 1:
		note(4, 1);
		return XDP_TX;
	case 2:
		note(4, 2);
		/* fall through */
	default:
		return XDP_PASS;
	}
}
