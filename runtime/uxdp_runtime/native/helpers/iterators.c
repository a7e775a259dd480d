/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Iterators that are open-coded in a program: bpf_for, bpf_repeat, bpf_for_each(num, …).
 *
 * An iterator is on the program's stack, and next returns a pointer into it. Inlined, a loop over
 * numbers is a loop over numbers.
 *
 * An iterator over bits copies them when it is made. One word is in the iterator itself; for more
 * there are some places here (a module is one worker's), where the kernel allocates memory.
 *
 * References: kernel/bpf/bpf_iter.c, bpf_iter_num_new(); kernel/bpf/helpers.c, bpf_iter_bits_new()
 */
#include "../known_memory.h"

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

#define BITS_MAX_WORDS 511u /* BITS_ITER_NR_WORDS_MAX */
#define BITS_PLACES 16u

struct iter_bits {
	u64 bits; /* the only word, or the number of a place */
	u32 num_bits;
	s32 bit; /* the last one that was found */
};

_Static_assert(sizeof(struct iter_bits) == 16, "as large as struct bpf_iter_bits");

static u64 bits_places[BITS_PLACES][BITS_MAX_WORDS];
static u32 bits_used; /* a bit for each place */

/* The words of an iterator, whatever was written over it. */
UXDP_INLINE const u64 *iter_bits_words(const struct iter_bits *it)
{
	return it->num_bits == 64 ? &it->bits : bits_places[it->bits % BITS_PLACES];
}

UXDP_COLD s32 iter_bits_copy(struct iter_bits *it, u64 from, u32 num_words)
{
	u32 place = bits_used == (1u << BITS_PLACES) - 1 ? BITS_PLACES : __builtin_ctz(~bits_used);
	s64 error;

	if (place == BITS_PLACES)
		return -ENOMEM;
	error = read_known(bits_places[place], from, num_words * 8);
	if (error)
		return error;
	bits_used |= 1u << place;
	it->bits = place;
	it->num_bits = num_words * 64;
	return 0;
}

UXDP_HELPER s32 uxdp_kfunc_iter_bits_new(struct iter_bits *it, u64 from, u32 num_words)
{
	it->bits = 0;
	it->num_bits = 0;
	it->bit = -1;
	if (!from || !num_words)
		return -EINVAL;
	if (num_words > BITS_MAX_WORDS)
		return -E2BIG;
	if (num_words > 1)
		return iter_bits_copy(it, from, num_words);
	if (read_known(&it->bits, from, 8))
		return -EFAULT;
	it->num_bits = 64;
	return 0;
}

UXDP_HELPER s32 *uxdp_kfunc_iter_bits_next(struct iter_bits *it)
{
	u32 next = it->bit + 1, num_bits = it->num_bits;
	const u64 *words = iter_bits_words(it);

	if (num_bits > BITS_MAX_WORDS * 64)
		num_bits = 0;
	for (; next < num_bits; next = (next | 63) + 1) {
		u64 word = words[next / 64] >> next % 64;

		if (word) {
			it->bit = next + (u32)__builtin_ctzll(word);
			return &it->bit;
		}
	}
	it->bit = num_bits;
	return NULL;
}

UXDP_HELPER void uxdp_kfunc_iter_bits_destroy(struct iter_bits *it)
{
	if (it->num_bits > 64)
		bits_used &= ~(1u << it->bits % BITS_PLACES);
}
