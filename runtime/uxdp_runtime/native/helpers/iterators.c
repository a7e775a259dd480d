/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Iterators that are open-coded in a program: bpf_for, bpf_repeat, bpf_for_each(num, …).
 *
 * An iterator is on the program's stack, and next returns a pointer into it. Inlined, a loop over
 * numbers is a loop over numbers.
 *
 * Reference: kernel/bpf/bpf_iter.c, bpf_iter_num_new()
 */
#include "../memory.h"

struct iter_num {
	s32 current;
	s32 end;
};

_Static_assert(sizeof(struct iter_num) == 8, "as large as struct bpf_iter_num");

UXDP_HELPER s32 uxdp_kfunc_iter_num_new(struct iter_num *it, s32 start, s32 end)
{
	s32 error = unlikely(start > end)				   ? -EINVAL
		    : unlikely((s64)end - (s64)start > (s64)BPF_MAX_LOOPS) ? -E2BIG
									   : 0;

	it->current = error ? 0 : (s32)((u32)start - 1);
	it->end = error ? 0 : end;
	return error;
}

UXDP_HELPER s32 *uxdp_kfunc_iter_num_next(struct iter_num *it)
{
	/* INT_MIN - 1 wraps, as in the kernel */
	s32 next = (s32)((u32)it->current + 1);

	if (next >= it->end) {
		it->current = it->end = 0;
		return NULL;
	}
	it->current = next;
	return &it->current;
}

UXDP_HELPER void uxdp_kfunc_iter_num_destroy(struct iter_num *it)
{
	it->current = it->end = 0;
}
