/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Fetching what a lookup will read, some time before. A lookup in a hash map reads two lines that
 * are seldom in a cache if there are many elements: the home bucket, and the element that it leads
 * to. So there are two steps, with other frames' steps in between. All is read as by a lookup
 * without the check that it was not disturbed: what comes of it is only a hint.
 */
#ifndef UXDP_MAPS_PREFETCH_H
#define UXDP_MAPS_PREFETCH_H

#include "array.h"
#include "hash_find.h"
#include "lpm.h"
#include "nested.h"

/* Half of what the second-level cache of the CPUs of today has, for the frames want some of it. */
#define UXDP_CACHE_BYTES (256u << 10)

UXDP_HELPER void *uxdp_peek(const struct uxdp_map *map, const void *key)
{
	if (map->kind == BPF_MAP_TYPE_HASH_OF_MAPS)
		return inner_of(map, hash_lookup(map, key));
	if (map_is_hash(map)) {
		u32 element = hash_find(map, map->cpu_store, key).element;

		return element ? hash_value_of(map, map->cpu_store, element - 1) : NULL;
	}
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
		return array_lookup(map, map->store, key);
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return array_lookup(map, map->cpu_store, key);
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_lookup(map, key);
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
		return array_of_maps_lookup(map, key);
	default:
		return NULL;
	}
}

UXDP_HELPER u64 uxdp_prefetch(const struct uxdp_map *map, const void *key)
{
	if (map_is_hash(map)) {
		struct hash hash = hash_key(map, key);

		__builtin_prefetch(hash_bucket(map, hash.home));
		return (u64)hash.home << 32 | hash.tag;
	}
	if (map->kind == BPF_MAP_TYPE_LPM_TRIE) {
		struct lpm_key wanted = lpm_key(map, key);
		u32 root = lpm_root_index(map, &wanted);

		__builtin_prefetch(lpm_root(map, root));
		return root;
	}
	__builtin_prefetch(
	    array_lookup(map, map->kind == BPF_MAP_TYPE_ARRAY ? map->store : map->cpu_store, key));
	return 0;
}

UXDP_HELPER void uxdp_prefetch_element(const struct uxdp_map *map, u64 place)
{
	if (map_is_hash(map)) {
		const struct hash_bucket *bucket = hash_bucket(map, place >> 32);
		u32 overflow, mask = bucket_match(bucket, place, &overflow);
		u32 slot = mask ? __builtin_ctz(mask) : 0;
		u32 element = __atomic_load_n(&bucket->element[slot], __ATOMIC_RELAXED);
		const u8 *first;

		if (!mask || !element)
			return;
		if (hash_is_lru(map))
			first = (u8 *)lru_node(map, element - 1);
		else
			first = (u8 *)hash_key_of(map, map->cpu_store, element - 1);
		__builtin_prefetch(first);
		if (hash_stride(map) > CACHE_LINE || hash_cpu_stride(map) > CACHE_LINE)
			__builtin_prefetch(first + CACHE_LINE);
		if (map->kind == BPF_MAP_TYPE_LRU_PERCPU_HASH)
			__builtin_prefetch(hash_value_of(map, map->cpu_store, element - 1));
	} else if (map->kind == BPF_MAP_TYPE_LPM_TRIE) {
		u32 child = lpm_load(&lpm_root(map, place)->child);

		if (child & LPM_LEAF) {
			__builtin_prefetch(lpm_element(map, (child & ~LPM_LEAF) - 1));
		} else if (child) {
			__builtin_prefetch(lpm_node(map, child - 1)->child);
			__builtin_prefetch(&lpm_node(map, child - 1)->prefixes);
		}
	}
}

/* How many of the elements of a hash map have ever been used: those that memory was touched for. */
UXDP_INLINE u64 hash_used(const struct uxdp_map *map)
{
	const struct hash_header *header = hash_header(map);

	if (!hash_is_lru(map))
		return __atomic_load_n(&header->fresh, __ATOMIC_RELAXED);
	if (hash_has_cpu_lrus(map)) /* each begins at its own share of the elements */
		return (u64)map->num_cpus *
		       __atomic_load_n(&header->cpu[0].lru_fresh, __ATOMIC_RELAXED);
	return __atomic_load_n(&header->cpu[map->num_cpus].lru_fresh, __ATOMIC_RELAXED);
}

UXDP_HELPER bool uxdp_outgrows_cache(const struct uxdp_map *map)
{
	if (map_is_hash(map))
		return hash_used(map) *
			   (sizeof(struct hash_bucket) + hash_stride(map) + hash_cpu_stride(map)) >
		       UXDP_CACHE_BYTES;
	if (map->kind == BPF_MAP_TYPE_LPM_TRIE)
		return __atomic_load_n(&lpm_header(map)->entries, __ATOMIC_RELAXED) *
			   (sizeof(struct lpm_root) + lpm_stride(map)) >
		       UXDP_CACHE_BYTES;
	return true; /* an array: nobody counts what is used of it */
}

#endif
