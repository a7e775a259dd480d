/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * BLOOM_FILTER: whether a value was added before; some that were not seem so, too.
 *
 *	u32 seed, on a cache line of its own | bits
 *
 * Sizes and hashes are the kernel's, so with BPF_F_ZERO_SEED the values that seem added are the
 * same; without, they depend on the seed there and here. "extra" (map_extra) is the number of
 * hashes.
 *
 * References: kernel/bpf/bloom_filter.c; Bob Jenkins, lookup3.c, http://burtleburtle.net/bob
 */
#ifndef UXDP_MAPS_BLOOM_H
#define UXDP_MAPS_BLOOM_H

#include "../memory.h"

#define BLOOM_HASHES 5u /* if none are asked for */
#define BLOOM_BITS_AT 64u
#define JHASH_INITVAL 0xdeadbeef

UXDP_INLINE bool bloom_is_valid(const struct uxdp_map *map)
{
	u32 known = BPF_F_NUMA_NODE | BPF_F_ZERO_SEED | BPF_F_ACCESS_MASK;

	return map->max_entries && !map->key_size && map->value_size && !(map->flags & ~known) &&
	       map->extra <= 15;
}

UXDP_INLINE u32 bloom_hashes(const struct uxdp_map *map)
{
	return map->extra ? map->extra : BLOOM_HASHES;
}

/* entries * hashes / ln 2, as the kernel has it: a power of two, at most 2^32. */
UXDP_INLINE u64 bloom_bits(const struct uxdp_map *map)
{
	u64 bits = (u64)map->max_entries * bloom_hashes(map);

	if (bits > UINT32_MAX || bits / 5 * 7 > 1ull << 31)
		return 1ull << 32;
	bits = bits / 5 * 7;
	return bits <= 64 ? 64 : 1ull << log2_up(bits);
}

UXDP_INLINE u64 bloom_bytes(const struct uxdp_map *map)
{
	return round_up_to(BLOOM_BITS_AT + bloom_bits(map) / 8, PAGE_SIZE);
}

UXDP_INLINE u32 rotated(u32 word, u32 by)
{
	return word << by | word >> (32 - by);
}

struct jhash {
	u32 a, b, c;
};

UXDP_INLINE struct jhash jhash_mix(struct jhash h)
{
	static const u8 turns[6] = {4, 6, 8, 16, 19, 4};

	for (u32 i = 0; i < 6; i += 3) {
		h.a = (h.a - h.c) ^ rotated(h.c, turns[i]);
		h.c += h.b;
		h.b = (h.b - h.a) ^ rotated(h.a, turns[i + 1]);
		h.a += h.c;
		h.c = (h.c - h.b) ^ rotated(h.b, turns[i + 2]);
		h.b += h.a;
	}
	return h;
}

UXDP_INLINE u32 jhash_final(struct jhash h)
{
	h.c = (h.c ^ h.b) - rotated(h.b, 14);
	h.a = (h.a ^ h.c) - rotated(h.c, 11);
	h.b = (h.b ^ h.a) - rotated(h.a, 25);
	h.c = (h.c ^ h.b) - rotated(h.b, 16);
	h.a = (h.a ^ h.c) - rotated(h.c, 4);
	h.b = (h.b ^ h.a) - rotated(h.a, 14);
	return (h.c ^ h.b) - rotated(h.b, 24);
}

/* Both of the kernel's: words of a value in the order of little-endian memory, the last one filled
 * up with zeros. */
UXDP_INLINE u32 jhash(const void *value, u32 size, u32 seed)
{
	u32 start = JHASH_INITVAL + size + seed;
	struct jhash h = {start, start, start};
	const u8 *at = value;
	u32 words[3];

	for (; size > 12; size -= 12, at += 12) {
		__builtin_memcpy(words, at, 12);
		h = jhash_mix((struct jhash){h.a + words[0], h.b + words[1], h.c + words[2]});
	}
	if (!size)
		return h.c;
	__builtin_memset(words, 0, sizeof(words));
	__builtin_memcpy(words, at, size);
	return jhash_final((struct jhash){h.a + words[0], h.b + words[1], h.c + words[2]});
}

UXDP_INLINE u64 *bloom_word(const struct uxdp_map *map, u32 bit)
{
	return (u64 *)((u8 *)map->store + BLOOM_BITS_AT) + bit / 64;
}

UXDP_INLINE u32 bloom_bit(const struct uxdp_map *map, const void *value, u32 which)
{
	return jhash(value, map->value_size, *(const u32 *)map->store + which) &
	       (u32)(bloom_bits(map) - 1);
}

UXDP_INLINE s64 bloom_push(const struct uxdp_map *map, const void *value, u64 flags)
{
	if (unlikely(flags != BPF_ANY))
		return -EINVAL;
	for (u32 i = 0; i < bloom_hashes(map); i++) {
		u32 bit = bloom_bit(map, value, i);

		__atomic_fetch_or(bloom_word(map, bit), 1ull << bit % 64, __ATOMIC_RELAXED);
	}
	return 0;
}

UXDP_INLINE s64 bloom_peek(const struct uxdp_map *map, const void *value)
{
	for (u32 i = 0; i < bloom_hashes(map); i++) {
		u32 bit = bloom_bit(map, value, i);

		if (!(__atomic_load_n(bloom_word(map, bit), __ATOMIC_RELAXED) >> bit % 64 & 1))
			return -ENOENT;
	}
	return 0;
}

#endif
