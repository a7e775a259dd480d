// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_loop as the verifier puts it into the program, and as a call: there the error has 64 bits. */
#include "common.h"

static long count(__u32 index, __u32 *rounds)
{
	*rounds += 1;
	return index == 11;
}

static long count_twice(__u32 index, __u32 *rounds)
{
	*rounds += 2;
	return 0;
}

SEC("xdp")
int loop_in_place(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), rounds = 0, number = word & 0x100 ? word & 15 : ~word;
	volatile __u64 flags = word >> 9 & 1;

	note(0, bpf_loop(number, count, &rounds, 0));
	note(1, bpf_loop(number, count, &rounds, flags));
	note(2, bpf_loop(number & 0x80000007, word & 0x200 ? count : count_twice, &rounds, 0));
	note(3, rounds);
	return XDP_PASS;
}
