/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Hash maps from the control plane: bpf(2)'s view of them.
 *
 * Threads of the control plane take turns by a lock, since they share one CPU's worth of free
 * lists. Keys are enumerated in the order of buckets; whoever changes the map meanwhile may cause
 * keys to be missed, but none that is there all the time, unless the key at which the enumeration
 * stands is deleted: then it starts again, as in the kernel.
 *
 * Reference: kernel/bpf/hashtab.c, bpf_percpu_hash_copy(), htab_map_get_next_key()
 */
#ifndef UXDP_MAPS_HASH_CONTROL_H
#define UXDP_MAPS_HASH_CONTROL_H

#include "hash_update.h"

UXDP_SMALL static u64 next_seed(u64 *state)
{
	u64 word;

	*state += 0x9e3779b97f4a7c15ull; /* SplitMix64 */
	word = *state;
	word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9ull;
	word = (word ^ word >> 27) * 0x94d049bb133111ebull;
	return word ^ word >> 31;
}

/* The state is from the clock and from where the kernel put the memory; no secret, but not to be
 * guessed. */
UXDP_SMALL static void hash_init(const struct uxdp_map *map, u64 state)
{
	struct hash_header *header = hash_header(map);

	if (map->flags & BPF_F_ZERO_SEED)
		state = 0;
	for (u32 i = 0; i < HASH_SEEDS; i++)
		header->seed[i] = next_seed(&state) | 1ull << 32 | 1; /* no half is 0 */
	if (hash_is_lru(map))
		lru_init(map);
}

UXDP_SMALL static void *hash_control_part(const struct uxdp_map *map)
{
	return hash_part(map, 0);
}

UXDP_SMALL static s64 hash_control_lookup(const struct uxdp_map *map, const void *key, void *value)
{
	u32 element = hash_find(map, hash_control_part(map), key).element;

	if (!element)
		return -ENOENT;
	if (!hash_is_percpu(map)) {
		read_map_value(map, value, hash_value_of(map, NULL, element - 1));
		return 0;
	}
	for (u32 cpu = 0; cpu < map->num_cpus; cpu++)
		read_value((u8 *)value + cpu * hash_value_bytes(map),
			   hash_value_of(map, hash_part(map, cpu), element - 1),
			   hash_value_bytes(map));
	return 0;
}

UXDP_SMALL static struct hash_writer hash_control_writer(const struct uxdp_map *map)
{
	return (struct hash_writer){
	    .cpu = map->num_cpus, .all = true, .part = hash_control_part(map)};
}

UXDP_SMALL static s64 hash_control_update(const struct uxdp_map *map, const void *key,
					  const void *value, u64 flags)
{
	struct hash_writer writer = hash_control_writer(map);
	s64 result;

	if (!seqlock_lock(&hash_header(map)->control_lock))
		return -ETIMEDOUT;
	result = hash_update(map, &writer, key, value, flags);
	seqlock_unlock(&hash_header(map)->control_lock);
	return result;
}

UXDP_SMALL static s64 hash_control_delete(const struct uxdp_map *map, const void *key)
{
	struct hash_writer writer = hash_control_writer(map);
	s64 result;

	if (!seqlock_lock(&hash_header(map)->control_lock))
		return -ETIMEDOUT;
	result = hash_delete(map, &writer, key);
	seqlock_unlock(&hash_header(map)->control_lock);
	return result;
}

UXDP_SMALL static s64 hash_next_key(const struct uxdp_map *map, const void *key, void *next)
{
	u32 buckets = 1u << hash_bucket_bits(map);
	u32 number = 0, slot = 0;

	if (key) {
		struct hash_slot found = hash_find(map, hash_control_part(map), key);

		if (found.element) {
			number = found.bucket;
			slot = found.slot + 1;
		}
	}
	for (; number < buckets; number++, slot = 0) {
		const struct hash_bucket *bucket = hash_bucket(map, number);

		for (; slot < BUCKET_SLOTS; slot++) {
			u32 tag = __atomic_load_n(&bucket->tag[slot], __ATOMIC_ACQUIRE);
			u32 element = __atomic_load_n(&bucket->element[slot], __ATOMIC_ACQUIRE);

			if (!tag || !element)
				continue;
			load_key(next, hash_key_of(map, hash_control_part(map), element - 1),
				 map->key_size);
			read_fence();
			/* Torn if the element went to another key; whether it did, the tag tells.
			 */
			if (__atomic_load_n(&bucket->element[slot], __ATOMIC_ACQUIRE) == element &&
			    hash_key(map, next).tag == tag)
				return 0;
			slot--; /* look again; wraps to what ++ makes 0 */
		}
	}
	return -ENOENT;
}

#endif
