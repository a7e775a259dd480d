// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_loop: too many rounds, the most rounds, none, flags. The error is one of 32 bits. */
#include "common.h"

static long stop(__u32 index, __u32 *last)
{
	*last = index;
	return index == *last;
}

SEC("xdp")
int loop_errors(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), last = 7;

	note(0, bpf_loop(1 << 23, stop, &last, 0));
	note(1, bpf_loop((1 << 23) + 1, stop, &last, 0));
	note(2, bpf_loop(~0, stop, &last, 0));
	note(3, bpf_loop(0, stop, &last, 0));
	note(4, bpf_loop(word, stop, &last, 0));
	note(5, bpf_loop(word & 3, stop, &last, word >> 8 & 3));
	note(6, last);
	return XDP_PASS;
}
