/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The system's clocks; clock_gettime is one of the few C library functions that the loader
 * resolves.
 *
 * bpf_ktime_get_ns reads the clock every 13 us or so, and in between counts the CPU's ticks, which
 * takes a third of the time. The rate is that of the last second, at first of at least a
 * millisecond; it is used for a moment only, so its error does not matter: even where the clock is
 * being set right and runs a tenth too fast (adjtimex(2), tick), that makes a microsecond. Only on
 * x86, whose counter runs at one rate on all CPUs wherever Linux uses it for its own clock.
 */
#ifndef UXDP_CLOCK_H
#define UXDP_CLOCK_H

#include "memory.h"

#define NSEC_PER_SEC 1000000000ull
#define CLOCK_MEASURE_NS 1000000ull
#define CLOCK_READ_TICKS 2000	   /* half a microsecond; reading the clock takes 100 */
#define CLOCK_MAX_TICKS (1u << 15) /* 13 us at 2.6 GHz */

/* include/uapi/linux/time.h */
enum {
	CLOCK_MONOTONIC = 1,
	CLOCK_MONOTONIC_COARSE = 6,
	CLOCK_BOOTTIME = 7,
	CLOCK_TAI = 11,
};

/* struct timespec of 64-bit machines */
struct uxdp_timespec {
	s64 tv_sec;
	s64 tv_nsec;
};

extern int clock_gettime(s32 clock, struct uxdp_timespec *time);

UXDP_INLINE u64 clock_ns(s32 clock)
{
	struct uxdp_timespec now = {0};

	clock_gettime(clock, &now);
	return (u64)now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

UXDP_INLINE u64 worker_clock_ns(s32 clock)
{
	u64 fixed = uxdp_worker.now_ns;

	return unlikely(fixed) ? fixed : clock_ns(clock);
}

#if defined(__x86_64__)

/*
 * Read clock and counter at the same time. If that took long, because somebody else ran in between,
 * nothing is concluded from it.
 */
UXDP_COLD u64 clock_refresh(void)
{
	struct uxdp_worker *worker = &uxdp_worker;
	u64 ticks = __builtin_ia32_rdtsc();
	u64 now = clock_ns(CLOCK_MONOTONIC);
	u64 passed = now - worker->clock_base_ns;

	worker->clock_fresh = 0;
	if (__builtin_ia32_rdtsc() - ticks > CLOCK_READ_TICKS)
		return now;
	if (!worker->clock_base_ns || ticks <= worker->clock_base_ticks) {
		worker->clock_rate = 0;
		passed = NSEC_PER_SEC;
	} else if (passed > (worker->clock_rate ? NSEC_PER_SEC : CLOCK_MEASURE_NS)) {
		/* After a longer pause it is measured anew. */
		u64 scaled = passed < 4 * NSEC_PER_SEC ? passed << 32 : 0;

		worker->clock_rate = scaled / (ticks - worker->clock_base_ticks);
	}
	if (passed >= NSEC_PER_SEC) {
		worker->clock_base_ticks = ticks;
		worker->clock_base_ns = now;
	}
	worker->clock_ticks = ticks;
	worker->clock_ns = now;
	worker->clock_fresh = worker->clock_rate != 0;
	return now;
}
#endif

/* CLOCK_MONOTONIC for a program. */
UXDP_INLINE u64 worker_time_ns(void)
{
#if defined(__x86_64__)
	struct uxdp_worker *worker = &uxdp_worker;
	u64 now, ticks;

	if (unlikely(worker->now_ns))
		return worker->now_ns;
	ticks = __builtin_ia32_rdtsc() - worker->clock_ticks;
	if (likely(worker->clock_fresh && ticks < CLOCK_MAX_TICKS))
		now = worker->clock_ns + (ticks * worker->clock_rate >> 32);
	else
		now = clock_refresh();
	now = now > worker->clock_last ? now : worker->clock_last;
	worker->clock_last = now;
	return now;
#else
	return worker_clock_ns(CLOCK_MONOTONIC);
#endif
}

/*
 * The same where the compiler knows that a run of the program asks once at most
 * (compile/shared_time.py): there frames of a burst share a reading, as many as take
 * CLOCK_SHARED_NS together if they take what the last ones did. The counter is read by microcode
 * that waits for what comes before and holds up what comes behind, so that no frame's work overlaps
 * with the next one's.
 *
 * So what a program is told is as old as if its clock ticked slowly: the kernel's own ticks in 279
 * ns where it has nothing better than the ACPI timer (PMTMR_TICKS_PER_SEC,
 * include/linux/acpi_pmtmr.h). If frames suddenly take longer, up to CLOCK_MAX_SHARE - 1 of them
 * are told when the first one was. It never goes back. From one worker to another it may, by as
 * much; with the kernel's it may, by less: "Callers need to be aware of that and deal with it"
 * (ktime_get_mono_fast_ns(), kernel/time/timekeeping.c, which bpf_ktime_get_ns() calls).
 */
#define CLOCK_SHARED_NS 279u
#define CLOCK_MAX_SHARE 8u

/* What was read before was of another burst. */
UXDP_INLINE void clock_begin_burst(void)
{
	if (uxdp_shares_time())
		uxdp_worker.clock_share = 0;
}

UXDP_INLINE void clock_next_frame(void)
{
	if (uxdp_shares_time())
		uxdp_worker.clock_frames++;
}

/* Between bursts passes time without frames: then the next frame reads the clock as well. */
static __attribute__((noinline)) u64 clock_read_to_share(void)
{
	struct uxdp_worker *worker = &uxdp_worker;
	u64 now = worker_time_ns(), passed = now - worker->clock_read_ns;
	u32 frames = worker->clock_frames, share = CLOCK_MAX_SHARE;

	if (unlikely(worker->now_ns))
		return now;
	if (passed > CLOCK_SHARED_NS * CLOCK_MAX_SHARE || !frames)
		share = 1;
	else if (passed)
		share = CLOCK_SHARED_NS * frames / (u32)passed;
	worker->clock_share = share < CLOCK_MAX_SHARE ? share : CLOCK_MAX_SHARE;
	worker->clock_frames = 0;
	worker->clock_read_ns = now;
	return now;
}

UXDP_INLINE u64 worker_shared_time_ns(void)
{
	struct uxdp_worker *worker = &uxdp_worker;

	if (likely(worker->clock_frames < worker->clock_share))
		return worker->clock_last;
	return clock_read_to_share();
}

#endif
