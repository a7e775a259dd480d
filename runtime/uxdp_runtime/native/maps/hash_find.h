/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Finding a key in a hash map, without a lock.
 *
 * What makes a search wrong is an element that is given to another key while the search looks at
 * it. Whoever takes an element from a key, and whoever gives one to it, holds the lock of the key's
 * home bucket; an element is free for others only after that lock is released. So if the lock's
 * version is the same before and after, all that was seen belonged to the key all the time, and if
 * it differs, the search starts again. The version is in the cache line that is read anyway.
 *
 * The kernel's search has the same duty and does it by chains that end in their bucket's number
 * (lookup_nulls_elem_raw(), kernel/bpf/hashtab.c).
 */
#ifndef UXDP_MAPS_HASH_FIND_H
#define UXDP_MAPS_HASH_FIND_H

#include "hash_layout.h"

struct hash {
	u32 home;
	u32 tag;
};

/*
 * NH, as in UMAC (RFC 4418, 5.2.2): a sum of products of 32-bit halves under a random seed, so that
 * nobody who does not know the seed can choose keys that collide; the products do not wait for one
 * another. Plain 64-bit arithmetic, which BPF programs have too. Then one round of mixing, as
 * bucket and tag are taken from the two ends of the result.
 */
UXDP_INLINE struct hash hash_key(const struct uxdp_map *map, const void *key)
{
	const u64 golden = 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio */
	const struct hash_header *header = hash_header(map);
	u32 bits = hash_bucket_bits(map);
	u64 sum = 0;

	for (u32 i = 0; i < key_words(map->key_size); i++) {
		u64 word = key_word(key, i, map->key_size);
		u64 seed = header->seed[i % HASH_SEEDS];

		if (i && i % HASH_SEEDS == 0)
			sum = (sum ^ sum >> 32) * golden;
		sum += (u64)(u32)(word + seed) * (u32)((word >> 32) + (seed >> 32));
	}
	sum = (sum ^ sum >> 32) * golden;
	return (struct hash){.home = bits ? sum >> (64 - bits) : 0, .tag = (u32)sum | 1};
}

/* A bit for each slot of the bucket that has this tag; how many elements passed it over. */
UXDP_INLINE u32 bucket_match(const struct hash_bucket *bucket, u32 tag, u32 *overflow)
{
#if defined(__clang__) && !defined(UXDP_TSAN)
	typedef u32 words __attribute__((vector_size(32)));
	typedef bool flags __attribute__((ext_vector_type(8)));
	/* One load of aligned words, each of which comes whole. */
	words found = *(const volatile words *)bucket;
	flags equal = __builtin_convertvector(found == tag, flags);
	u8 mask;

	__builtin_memcpy(&mask, &equal, 1);
	*overflow = found[BUCKET_SLOTS];
	read_fence();
	return mask & ((1u << BUCKET_SLOTS) - 1);
#else
	u32 mask = 0;

	*overflow = __atomic_load_n(&bucket->overflow, __ATOMIC_ACQUIRE);
	for (u32 i = 0; i < BUCKET_SLOTS; i++)
		mask |= (u32)(__atomic_load_n(&bucket->tag[i], __ATOMIC_ACQUIRE) == tag) << i;
	return mask;
#endif
}

struct hash_slot {
	u32 bucket;
	u32 slot;
	u32 element; /* number + 1; 0: not found */
};

/* One search, which may have been disturbed. */
UXDP_INLINE struct hash_slot hash_search(const struct uxdp_map *map, void *part, const void *key,
					 struct hash hash)
{
	u32 last = (1u << hash_bucket_bits(map)) - 1;

	for (u32 number = hash.home;;) {
		const struct hash_bucket *bucket = hash_bucket(map, number);
		u32 overflow, mask = bucket_match(bucket, hash.tag, &overflow);

		for (; mask; mask &= mask - 1) {
			u32 slot = __builtin_ctz(mask);
			u32 element = __atomic_load_n(&bucket->element[slot], __ATOMIC_ACQUIRE);

			if (likely(element && equals_key(hash_key_of(map, part, element - 1), key,
							 map->key_size)))
				return (struct hash_slot){number, slot, element};
		}
		if (likely(!overflow))
			break;
		number = (number + 1) & last;
		if (number == hash.home)
			break;
	}
	return (struct hash_slot){0};
}

UXDP_INLINE struct hash_slot hash_find(const struct uxdp_map *map, void *part, const void *key)
{
	struct hash hash = hash_key(map, key);
	const u32 *lock = &hash_bucket(map, hash.home)->lock;

	for (;;) {
		u32 version = __atomic_load_n(lock, __ATOMIC_ACQUIRE);
		struct hash_slot found = hash_search(map, part, key, hash);

		read_fence();
		if (likely(__atomic_load_n(lock, __ATOMIC_ACQUIRE) == version))
			return found;
	}
}

/* Most are marked already, and a write would take the line from the other CPUs. */
UXDP_INLINE void lru_mark(const struct uxdp_map *map, u32 element)
{
	struct lru_node *node = lru_node(map, element);

	if (!__atomic_load_n(&node->ref, __ATOMIC_RELAXED))
		__atomic_store_n(&node->ref, 1, __ATOMIC_RELAXED);
}

/* For programs: part is map->cpu_store. */
UXDP_INLINE void *hash_lookup(const struct uxdp_map *map, const void *key)
{
	u32 element = hash_find(map, map->cpu_store, key).element;

	if (!element)
		return NULL;
	if (hash_is_lru(map))
		lru_mark(map, element - 1);
	return hash_value_of(map, map->cpu_store, element - 1);
}

#endif
