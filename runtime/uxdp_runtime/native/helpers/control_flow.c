/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Callbacks and tail calls.
 *
 * A callback is called as s64 (*)(u64 index, void *context); the compiler adapts the program's
 * function to that. Tail calls are jumps of the compiler's making; here is only where one leads.
 *
 * References: kernel/bpf/bpf_iter.c, bpf_loop(); arch/x86/net/bpf_jit_comp.c,
 * emit_bpf_tail_call_indirect()
 */
#include "../clock.h"

/* BPF_MAX_TIMED_LOOPS and the time of bpf_check_timed_may_goto(), kernel/bpf/core.c */
#define MAY_GOTO_STEPS 0xffffu
#define MAY_GOTO_NS 250000000u

typedef s64 (*uxdp_loop_callback)(u64 index, void *context);

UXDP_INLINE s64 call_in_turn(u32 loops, uxdp_loop_callback callback, void *context)
{
	u32 i;

	for (i = 0; i < loops; i++)
		if (callback(i, context))
			return i + 1;
	return i;
}

UXDP_HELPER s64 uxdp_helper_loop(u64 loops, uxdp_loop_callback callback, void *context, u64 flags)
{
	if (unlikely(flags))
		return -EINVAL;
	if (unlikely((u32)loops > BPF_MAX_LOOPS))
		return -E2BIG;
	return call_in_turn(loops, callback, context);
}

/*
 * A loop with one callback and flags that are known to be 0: the verifier puts it in the call's
 * place (inline_bpf_loop). There the number is compared as it is in its register, and the error is
 * moved into one of 32 bits.
 */
UXDP_HELPER s64 uxdp_loop_in_place(u64 loops, uxdp_loop_callback callback, void *context, u64 flags)
{
	(void)flags;
	if (unlikely(loops > BPF_MAX_LOOPS))
		return (u32)-E2BIG;
	return call_in_turn(loops, callback, context);
}

/*
 * Whether a loop ends here although its condition holds (may_goto): not before it has run for a
 * quarter of a second. The kernel of x86 and ARM counts so since Linux 6.18, and looks at the clock
 * each time a frame of the stack has made 65535 such jumps; older ones end after 8 M jumps.
 */
static __attribute__((noinline)) u64 loop_clock_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

UXDP_HELPER bool uxdp_may_goto(u64 *left, u64 *started)
{
	if (unlikely(!*left))
		return true;
	if (likely(--*left))
		return false;
	if (!*started)
		*started = loop_clock_ns();
	else if (loop_clock_ns() - *started >= MAY_GOTO_NS)
		return false; /* the next one ends the loop */
	*left = MAY_GOTO_STEPS;
	return false;
}

/*
 * The number of the program to go on with, or -ENOENT: the call fails and the program continues.
 * Only a call that succeeds counts. The kernel takes the lower 32 bits of the index.
 */
UXDP_HELPER s64 uxdp_tail_target(struct uxdp_frame *frame, const struct uxdp_map *map, u64 index)
{
	u32 entry;

	if (unlikely((u32)index >= map->max_entries || !frame->tail_calls))
		return -ENOENT;
	entry = __atomic_load_n((const u32 *)map->store + (u32)index, __ATOMIC_ACQUIRE);
	if (unlikely(!entry))
		return -ENOENT;
	frame->tail_calls--;
	return entry - 1;
}
