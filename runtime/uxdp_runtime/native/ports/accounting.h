/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Counters of a queue that say the same on every port.
 */
#ifndef UXDP_PORTS_ACCOUNTING_H
#define UXDP_PORTS_ACCOUNTING_H

#include "port.h"

/* n frames are disposed of, so long after their burst was received. */
UXDP_INLINE void account_latency(struct uxdp_queue_state *state, u64 took, u32 n)
{
	u32 bucket = took ? 63 - __builtin_clzll(took) : 0;

	state->latency[bucket < UXDP_LATENCY_BUCKETS ? bucket : UXDP_LATENCY_BUCKETS - 1] += n;
}

/* Something was done with frames: when that began and ended, CLOCK_MONOTONIC. */
UXDP_INLINE void account_work(struct uxdp_queue_state *state, u64 start, u64 now)
{
	state->busy_ns += now - start;
	__atomic_store_n(&state->heartbeat_ns, now, __ATOMIC_RELAXED);
}

/* Frames that were received, but whose verdict the last data process did not live to count. */
static void account_ended(struct uxdp_queue_state *state)
{
	u64 counted = 0;

	for (u32 i = 0; i <= XDP_REDIRECT; i++)
		counted += state->verdict_frames[i];
	for (u32 i = 0; i < UXDP_LOSSES; i++)
		counted += state->lost[i];
	if (state->rx_frames > counted)
		state->lost[UXDP_LOSS_ENDED] += state->rx_frames - counted;
}

#endif
