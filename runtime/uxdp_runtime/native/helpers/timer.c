/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Timers, see timers.h. Reference: kernel/bpf/helpers.c */
#include "../timers.h"

UXDP_HELPER s64 uxdp_helper_timer_init(struct timer_handle *handle, const struct uxdp_map *map,
				       u64 flags)
{
	u32 clock = flags & (MAX_CLOCKS - 1);

	if (flags >= MAX_CLOCKS ||
	    (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME && clock != CLOCK_BOOTTIME))
		return -EINVAL;
	return timer_init(handle, map, clock);
}

UXDP_HELPER s64 uxdp_helper_timer_set_callback(struct timer_handle *handle, u64 callback)
{
	struct timer *timer = timer_lock(handle);

	if (!timer)
		return -EINVAL;
	timer->callback = callback;
	seqlock_unlock(&timer->lock);
	return 0;
}

UXDP_HELPER s64 uxdp_helper_timer_start(struct timer_handle *handle, u64 ns, u64 flags)
{
	struct timer *timer;
	u64 place, expires;

	if (unlikely(flags & ~(BPF_F_TIMER_ABS | BPF_F_TIMER_CPU_PIN)))
		return -EINVAL;
	timer = timer_lock(handle);
	if (!timer)
		return -EINVAL;
	if (!timer->callback) {
		seqlock_unlock(&timer->lock);
		return -EINVAL;
	}
	place = timer - timer_at(uxdp_worker.timers, 0);
	expires = timer_expiry(ns, flags, timer->clock);
	timer->expires = expires;
	timer->owner = uxdp_worker.cpu;
	seqlock_unlock(&timer->lock);
	heap_add(uxdp_worker.timers, place, expires);
	return 0;
}

/* Whether it had been started; from then on it has no callback. */
UXDP_HELPER s64 uxdp_helper_timer_cancel(struct timer_handle *handle)
{
	struct timer *timer = timer_lock(handle);
	bool started;
	s64 error;

	if (!timer)
		return -EINVAL;
	if (timer->running == uxdp_worker.cpu + 1) {
		seqlock_unlock(&timer->lock);
		return -EDEADLK;
	}
	started = timer->expires != 0;
	timer->expires = 0;
	timer->callback = 0;
	seqlock_unlock(&timer->lock);
	error = timer_await(timer);
	return error ? error : started;
}
