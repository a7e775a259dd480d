/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Every element of a map, how many there are, and other CPUs' elements.
 *
 * A callback gets the map, pointers to key and value, and what the caller handed on; 0 means to go
 * on. Elements of hash maps come in another order than the kernel's.
 *
 * References: kernel/bpf/arraymap.c, bpf_for_each_array_elem(); kernel/bpf/hashtab.c,
 * bpf_for_each_hash_elem(); their map_lookup_percpu_elem functions; kernel/bpf/map_iter.c
 */
#include "../maps/array.h"
#include "../maps/hash_find.h"

typedef s64 (*uxdp_element_callback)(const struct uxdp_map *map, const void *key, void *value,
				     void *context);

UXDP_INLINE s64 each_array_element(const struct uxdp_map *map, void *part,
				   uxdp_element_callback callback, void *context)
{
	u32 i;

	for (i = 0; i < map->max_entries; i++) {
		u32 key = i;

		if (callback(map, &key, array_element(map, part, i), context))
			return i + 1;
	}
	return i;
}

UXDP_INLINE s64 each_hash_element(const struct uxdp_map *map, uxdp_element_callback callback,
				  void *context)
{
	u32 buckets = 1u << hash_bucket_bits(map);
	s64 elements = 0;

	for (u32 number = 0; number < buckets; number++) {
		const struct hash_bucket *bucket = hash_bucket(map, number);

		for (u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
			u32 tag = __atomic_load_n(&bucket->tag[slot], __ATOMIC_ACQUIRE);
			u32 element = __atomic_load_n(&bucket->element[slot], __ATOMIC_ACQUIRE);

			if (!tag || !element)
				continue;
			elements++;
			if (callback(map, hash_key_of(map, map->cpu_store, element - 1),
				     hash_value_of(map, map->cpu_store, element - 1), context))
				return elements;
		}
	}
	return elements;
}

UXDP_HELPER s64 uxdp_helper_for_each_map_elem(const struct uxdp_map *map,
					      uxdp_element_callback callback, void *context,
					      u64 flags)
{
	if (unlikely(flags))
		return -EINVAL;
	if (map_is_hash(map))
		return each_hash_element(map, callback, context);
	return each_array_element(
	    map, map->kind == BPF_MAP_TYPE_ARRAY ? map->store : map->cpu_store, callback, context);
}

UXDP_HELPER void *uxdp_helper_map_lookup_percpu_elem(const struct uxdp_map *map, const void *key,
						     u64 cpu)
{
	u32 element;

	if (unlikely((u32)cpu >= map->num_cpus))
		return NULL;
	if (map->kind == BPF_MAP_TYPE_PERCPU_ARRAY)
		return array_lookup(map, (u8 *)map->store + (u32)cpu * array_cpu_bytes(map), key);
	element = hash_find(map, map->cpu_store, key).element;
	if (!element)
		return NULL;
	if (hash_is_lru(map))
		lru_mark(map, element - 1);
	return hash_value_of(map, hash_part(map, (u32)cpu), element - 1);
}

/*
 * The kernel keeps count for maps of kernel/bpf/hashtab.c alone; others have none, it says. Here
 * nobody counts with every update for the few that ask.
 */
UXDP_HELPER s64 uxdp_kfunc_map_sum_elem_count(const struct uxdp_map *map)
{
	u32 buckets = 1u << hash_bucket_bits(map);
	s64 elements = 0;

	if (!map_is_hash(map) || map->kind == BPF_MAP_TYPE_DEVMAP_HASH)
		return 0;
	for (u32 number = 0; number < buckets; number++) {
		const struct hash_bucket *bucket = hash_bucket(map, number);

		for (u32 slot = 0; slot < BUCKET_SLOTS; slot++)
			elements += __atomic_load_n(&bucket->element[slot], __ATOMIC_RELAXED) != 0;
	}
	return elements;
}

/* The same of a map that may be an inner one. */
UXDP_HELPER s64 uxdp_inner_map_sum_elem_count(const struct uxdp_map *map)
{
	struct uxdp_map space;

	return uxdp_kfunc_map_sum_elem_count(uxdp_map_here(map, &space));
}
