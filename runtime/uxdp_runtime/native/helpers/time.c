/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Clocks, numbers of CPUs and nodes, random numbers.
 *
 * References: kernel/bpf/helpers.c; include/linux/jiffies.h, INITIAL_JIFFIES
 */
#include "../clock.h"

UXDP_HELPER u64 uxdp_helper_ktime_get_ns(void)
{
	return uxdp_shares_time() ? worker_shared_time_ns() : worker_time_ns();
}

/*
 * What worker_time_ns() counts may be some nanoseconds off the clock, but the kernel's clocks keep
 * an order that programs may rely on: one that counts sleep, too, is never behind one that does
 * not.
 */
UXDP_HELPER u64 uxdp_helper_ktime_get_boot_ns(void)
{
	u64 now = worker_clock_ns(CLOCK_BOOTTIME);

	return uxdp_worker.now_ns || now > uxdp_worker.clock_last ? now : uxdp_worker.clock_last;
}

/* And the coarse one is never ahead of what the other one says later. */
UXDP_HELPER u64 uxdp_helper_ktime_get_coarse_ns(void)
{
	u64 now = worker_clock_ns(CLOCK_MONOTONIC_COARSE);

	if (!uxdp_worker.now_ns && now > uxdp_worker.clock_last)
		uxdp_worker.clock_last = now;
	return now;
}

UXDP_HELPER u64 uxdp_helper_ktime_get_tai_ns(void)
{
	return worker_clock_ns(CLOCK_TAI);
}

/* Jiffies start five minutes before the 32-bit counter wraps. */
UXDP_HELPER u64 uxdp_helper_jiffies64(void)
{
	u64 hz = uxdp_worker.jiffies_hz;

	return (u32)(-300 * (s64)hz) +
	       worker_clock_ns(CLOCK_MONOTONIC_COARSE) / (NSEC_PER_SEC / hz);
}

UXDP_HELPER u64 uxdp_helper_get_smp_processor_id(void)
{
	return uxdp_worker.cpu;
}

UXDP_HELPER u64 uxdp_helper_get_numa_node_id(void)
{
	return uxdp_worker.numa_node;
}

UXDP_INLINE u64 rotate_left(u64 word, u32 bits)
{
	return word << bits | word >> (64 - bits);
}

/* xoshiro256++ by Blackman and Vigna; the upper half, which is the better one */
UXDP_HELPER u64 uxdp_helper_get_prandom_u32(void)
{
	u64 *state = uxdp_worker.prng;
	u64 result = rotate_left(state[0] + state[3], 23) + state[0];
	u64 shifted = state[1] << 17;

	state[2] ^= state[0];
	state[3] ^= state[1];
	state[1] ^= state[2];
	state[0] ^= state[3];
	state[2] ^= shifted;
	state[3] = rotate_left(state[3], 45);
	return result >> 32;
}
