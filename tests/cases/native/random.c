// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_get_prandom_u32: 32 bits, of which in 64 draws each is set and clear at least once. */
#include "common.h"

struct draws {
	__u32 ones, zeros, last, repeated;
};

static long draw(__u32 index, struct draws *draws)
{
	__u64 bits = bpf_get_prandom_u32();

	note(0, bits >> 32);
	draws->ones |= bits;
	draws->zeros |= ~bits;
	draws->repeated += draws->last == (__u32)bits;
	draws->last = bits;
	return 0;
}

SEC("xdp")
int random(struct xdp_md *ctx)
{
	struct draws draws = {0};

	bpf_loop(64, draw, &draws, 0);
	note(1, draws.ones);
	note(2, draws.zeros);
	note(3, draws.repeated < 3);
	return draws.ones == draws.zeros ? XDP_PASS : XDP_DROP;
}
