// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A switch of many cases at cpu v4, of which the BPF backend would make a table of jumps that no
 * kernel before Linux 6.19 takes. */
#include "common.h"
static __noinline __u64 pick(__u32 kind, __u32 word)
{
	switch (kind & 31) {
	case 0:
		note(0, word);
		return 3;
	case 1:
		return word * 3;
	case 2:
		return word ^ 0x55;
	case 3:
		return word - 9;
	case 4:
		note(1, word);
		return word >> 2;
	case 5:
		return word << 5;
	case 6:
		return word % 7;
	case 7:
		return word / 9;
	case 8:
		return word * word;
	case 9:
		note(2, word);
		return ~word;
	case 10:
		return word | 3;
	case 11:
		return -word;
	case 12:
		return word & 0xf0f;
	case 13:
		return word + 13;
	case 14:
		note(3, 3);
		return 14;
	case 15:
		return word * 15;
	case 16:
		return word * 16 ^ 4;
	case 17:
		return word * 17 ^ 6;
	}
	return 0;
}
SEC("xdp") int switch_table(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	note(4, pick(word >> 4, word));
	return XDP_PASS;
}
