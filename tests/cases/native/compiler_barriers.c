// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Empty assembly that only keeps the compiler from knowing: barrier() and barrier_var(). */
#include "common.h"

#define barrier_of(variable) asm volatile("" : "+r"(variable))

SEC("xdp")
int compiler_barriers(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), index = word & 63;

	barrier_of(index);
	note(0, index);
	asm volatile("" ::: "memory");
	note(1, index + word);
	return XDP_PASS;
}
