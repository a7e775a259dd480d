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
#include "../memory.h"

#define BPF_MAX_LOOPS (8u << 20)

typedef s64 (*uxdp_loop_callback)(u64 index, void *context);

UXDP_HELPER s64 uxdp_helper_loop(u64 loops, uxdp_loop_callback callback, void *context, u64 flags)
{
	u32 i;

	if (unlikely(flags))
		return -EINVAL;
	/* The verifier inlines the call, and there the error is moved into a 32-bit register
	 * (inline_bpf_loop). */
	if (unlikely((u32)loops > BPF_MAX_LOOPS))
		return (u32)-E2BIG;
	for (i = 0; i < (u32)loops; i++)
		if (callback(i, context))
			return i + 1;
	return i;
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
