// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A frame of 512 bytes on the stack, all of it used, at variable places; half of it in a call. */
#include "common.h"

static __noinline __u32 half(__u32 word)
{
	__u32 table[60];

	for (int i = 0; i < 60; i++)
		table[i] = word * i;
	word &= 63;
	return word < 60 ? table[word] : 0;
}

SEC("xdp")
int large_stack(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), place = word % 64;
	__u8 memory[200];

	__builtin_memset(memory, word >> 24, sizeof(memory));
	for (int i = 0; i < 200; i += 3)
		memory[i] ^= word >> (i & 15);
	memory[place * 3 & 127] = 1;
	note(0, memory[place] | memory[place + 64] << 8 | memory[199] << 16);
	note(1, half(word));
	return XDP_PASS;
}
