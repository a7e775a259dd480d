/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The program on a burst of frames.
 *
 * A lookup among a million flows misses the caches two or three times, each time for longer than
 * the rest of the program takes. So before the program runs on a group of frames, the part of it
 * that finds the keys does, without any effect but that memory is fetched: for all frames of the
 * group where the lookup begins, then for all where that leads. The program itself then runs frame
 * by frame in order, as ever. It may well look up something else, because an earlier frame of the
 * group changed a map: then nothing is lost but the advantage.
 */
#include "ask.h"
#include "clock.h"
#include "maps/nested.h"
#include "maps/prefetch.h"
#include "mbufs.h"
#include "onward.h"
#include "timers.h"

/* Frames that are looked ahead for at once: some more than the misses that a CPU has under way. */
#define UXDP_GROUP 32u

/* What the compiler defines if the program has a lookup that is worth it. */
__attribute__((weak)) u32 uxdp_ahead(struct uxdp_frame *frame, u64 *place,
				     const struct uxdp_map **map)
{
	(void)frame;
	*place = 0;
	*map = NULL;
	return 0;
}

__attribute__((weak)) void uxdp_follow(u32 lookup, u64 place, const struct uxdp_map *map)
{
	(void)lookup;
	(void)place;
	(void)map;
}

__attribute__((weak)) bool uxdp_looks_ahead(void)
{
	return false;
}

__attribute__((weak)) bool uxdp_ahead_pays(void)
{
	return false;
}

/* What a frame's descriptor must say before: the compiler knows whether the program asks. */
__attribute__((weak)) bool uxdp_redirects(void)
{
	return true;
}

__attribute__((weak)) bool uxdp_asks_for_room(void)
{
	return true;
}

__attribute__((weak)) bool uxdp_asks_for_frame(void)
{
	return true;
}

__attribute__((weak)) bool uxdp_asks_for_memory(void)
{
	return true;
}

__attribute__((weak)) bool uxdp_has_timers(void)
{
	return true;
}

__attribute__((weak)) bool uxdp_shares_time(void)
{
	return false;
}

__attribute__((weak)) bool uxdp_makes_tail_calls(void)
{
	return true;
}

/* Only then is there a struct uxdp_kernel. */
__attribute__((weak)) bool uxdp_asks_kernel(void)
{
	return false;
}

__attribute__((weak)) bool uxdp_has_inner_maps(void)
{
	return false;
}

__attribute__((weak)) bool uxdp_has_onward(void)
{
	return false;
}

__attribute__((weak)) u32 uxdp_onward(struct uxdp_frame *frame, u32 number)
{
	(void)frame;
	(void)number;
	return XDP_ABORTED;
}

/* Apart, so that the loop that runs the program has the registers for itself. */
static __attribute__((noinline)) void look_ahead(struct uxdp_frame *frames, u32 n)
{
	u32 lookups[UXDP_GROUP];
	u64 places[UXDP_GROUP];
	const struct uxdp_map *maps[UXDP_GROUP];

	for (u32 i = 0; i < n; i++)
		lookups[i] = uxdp_ahead(&frames[i], &places[i], &maps[i]);
	for (u32 i = 0; i < n; i++)
		if (lookups[i])
			uxdp_follow(lookups[i], places[i], maps[i]);
}

void uxdp_run_timers(u64 now_ns)
{
	struct uxdp_timers *all = uxdp_worker.timers;

	uxdp_worker.stack_top = (u64)__builtin_frame_address(0);
	if (uxdp_has_inner_maps())
		burst_begins();
	if (uxdp_has_timers() && all)
		timers_run(now_ns, timer_heap(all, uxdp_worker.cpu)->used);
	if (uxdp_has_inner_maps())
		burst_ends();
}

/* Bits that any verdict has, and those that all have: where these are the same, so are verdicts. */
struct verdicts {
	u32 any, all;
};

UXDP_INLINE void run_frames(struct uxdp_frame *frames, u32 n, struct verdicts *verdicts)
{
	for (u32 i = 0; i < n; i++) {
		struct uxdp_frame *frame = &frames[i];

		if (uxdp_redirects()) {
			frame->redirect_kind = UXDP_REDIRECT_NONE;
			frame->redirect_map = 0;
			frame->redirect_flags = 0;
			frame->redirect_target = 0;
			frame->redirect_key = 0;
		}
		if (uxdp_asks_for_frame())
			uxdp_worker.frame = frame;
		if (uxdp_makes_tail_calls())
			frame->tail_calls = UXDP_TAIL_CALL_LIMIT;
		clock_next_frame();
		frame->verdict = uxdp_program(frame);
		if (uxdp_has_onward() && uxdp_worker.runs_onward && frame->verdict == XDP_REDIRECT)
			go_onward(frame);
		verdicts->any |= frame->verdict;
		verdicts->all &= frame->verdict;
	}
}

u32 uxdp_run(struct uxdp_frame *frames, u32 n)
{
	struct verdicts verdicts = {.any = 0, .all = ~0u};

	clock_begin_burst();
	uxdp_worker.burst = frames;
	if (uxdp_asks_for_memory())
		uxdp_worker.stack_top = (u64)__builtin_frame_address(0);
	if (uxdp_asks_kernel())
		kernel_begin_burst();
	if (uxdp_has_inner_maps())
		burst_begins();
	if (uxdp_has_timers() && uxdp_worker.next_timer_ns && *uxdp_worker.next_timer_ns) {
		u64 now = worker_time_ns();

		if (*uxdp_worker.next_timer_ns <= now)
			timers_run(now, TIMERS_AT_ONCE);
	}
	if (!uxdp_looks_ahead()) {
		run_frames(frames, n, &verdicts);
	} else {
		for (u32 done = 0; done < n; done += UXDP_GROUP) {
			u32 group = n - done < UXDP_GROUP ? n - done : UXDP_GROUP;

			if (uxdp_ahead_pays())
				look_ahead(&frames[done], group);
			run_frames(&frames[done], group, &verdicts);
		}
	}
	if (uxdp_has_inner_maps())
		burst_ends();
	return verdicts.any == verdicts.all ? verdicts.any : UXDP_VERDICTS_DIFFER;
}

bool uxdp_takes_mbufs(void)
{
	return !uxdp_asks_for_room() && !uxdp_asks_for_frame() && !uxdp_asks_for_memory() &&
	       !uxdp_asks_kernel() && !uxdp_redirects() && !uxdp_makes_tail_calls() &&
	       !uxdp_looks_ahead() && !uxdp_has_timers() && !uxdp_has_inner_maps() &&
	       !uxdp_has_onward();
}

u32 uxdp_run_mbufs(struct uxdp_mbuf **mbufs, u32 n, const void *pool, struct uxdp_burst *burst)
{
	u64 rx_bytes = 0, ol_flags = 0;
	u32 differ = 0, i;

	if (!uxdp_takes_mbufs())
		return 0;
	clock_begin_burst();
#pragma clang loop unroll_count(2)
	for (i = 0; i < n; i++) {
		struct uxdp_mbuf *mbuf = mbufs[i];
		struct uxdp_frame frame = {
		    .ingress_ifindex = burst->ingress_ifindex,
		    .rx_queue_index = burst->rx_queue_index,
		};

		if (unlikely(!mbuf_is_simple(mbuf, pool)))
			break;
		frame.data = frame.data_meta = mbuf_data(mbuf);
		frame.data_end = frame.data + mbuf->data_len;
		rx_bytes += mbuf->data_len;
		ol_flags |= mbuf->ol_flags;
		clock_next_frame();
		burst->verdicts[i] = uxdp_program(&frame);
	}
	burst->rx_bytes = rx_bytes;
	burst->ol_flags = ol_flags;
	for (u32 j = 0; j < i; j++)
		differ |= burst->verdicts[j] ^ burst->verdicts[0];
	burst->verdict = i && !differ ? burst->verdicts[0] : UXDP_VERDICTS_DIFFER;
	return i;
}
