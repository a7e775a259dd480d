/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Changing a hash map.
 *
 * As in the kernel, an update of a key that is there gives it another element, whole and at once,
 * in all maps but the per-CPU ones: who looked the key up earlier keeps the old element. HASH takes
 * the element that this CPU's last replacement set free; LRU maps take one as for a new key, which
 * may evict another. Per-CPU maps are written in place, and a key that a program adds is zero on
 * the other CPUs. Elements that a deletion sets free are the first that the same CPU gives out
 * again.
 *
 * Writers hold the lock of the key's home bucket. They share the slots of other buckets with the
 * writers there, so a slot is claimed by compare-and-swap of its element number and published by
 * its tag.
 *
 * Reference: kernel/bpf/hashtab.c
 */
#ifndef UXDP_MAPS_HASH_UPDATE_H
#define UXDP_MAPS_HASH_UPDATE_H

#include "lru.h"

/* Who changes the map. */
struct hash_writer {
	u32 cpu;    /* whose free lists; num_cpus: the control plane */
	bool all;   /* the value is that of all CPUs, one after the other; else of this one */
	void *part; /* where this CPU finds its keys and values */
};

/* --- elements --- */

UXDP_INLINE u32 *free_link(const struct uxdp_map *map, u32 number)
{
	return (u32 *)hash_key_of(map, hash_part(map, 0), number);
}

UXDP_INLINE u32 free_pop(const struct uxdp_map *map, struct hash_cpu *from)
{
	u32 element;

	if (!__atomic_load_n(&from->free, __ATOMIC_RELAXED) || !seqlock_lock(&from->lock))
		return 0;
	element = from->free;
	if (element)
		__atomic_store_n(&from->free,
				 __atomic_load_n(free_link(map, element - 1), __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	seqlock_unlock(&from->lock);
	return element;
}

UXDP_COLD u32 free_steal(const struct uxdp_map *map)
{
	for (u32 cpu = 0; cpu <= map->num_cpus; cpu++) {
		u32 element = free_pop(map, &hash_header(map)->cpu[cpu]);

		if (element)
			return element;
	}
	return 0;
}

/* A free element's number + 1, or 0. Only for maps without LRU. */
UXDP_INLINE u32 element_take(const struct uxdp_map *map, u32 cpu)
{
	struct hash_header *header = hash_header(map);
	u32 element = free_pop(map, &header->cpu[cpu]);
	u32 fresh = __atomic_load_n(&header->fresh, __ATOMIC_RELAXED);

	if (element)
		return element;
	while (fresh < map->max_entries)
		if (__atomic_compare_exchange_n(&header->fresh, &fresh, fresh + 1, true,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return fresh + 1;
	return free_steal(map);
}

/* HASH: the element that the writer has beyond the map's capacity; what it takes next in a
 * replacement. */
UXDP_INLINE u32 spare_of(const struct uxdp_map *map, u32 cpu)
{
	u32 spare = hash_header(map)->cpu[cpu].spare;

	return spare ? spare : map->max_entries + cpu + 1;
}

/*
 * The spare element of a map with BPF_F_NO_PREALLOC is the first of its free ones, since the kernel
 * takes all of them from one allocator there; else it is for replacements alone.
 */
UXDP_INLINE bool spare_is_free(const struct uxdp_map *map)
{
	return map->kind == BPF_MAP_TYPE_HASH && map->flags & BPF_F_NO_PREALLOC;
}

UXDP_INLINE void element_give(const struct uxdp_map *map, u32 cpu, u32 element)
{
	struct hash_cpu *to = &hash_header(map)->cpu[cpu];

	if (spare_is_free(map)) {
		u32 spare = spare_of(map, cpu);

		to->spare = element;
		element = spare;
	}
	if (!seqlock_lock(&to->lock))
		return;
	__atomic_store_n(free_link(map, element - 1), to->free, __ATOMIC_RELAXED);
	__atomic_store_n(&to->free, element, __ATOMIC_RELAXED);
	seqlock_unlock(&to->lock);
}

/* --- slots; the home bucket's lock is held --- */

/* Add 1 or -1 to what passed over the buckets from home up to this one. */
UXDP_COLD void count_overflow(const struct uxdp_map *map, u32 home, u32 bucket, s32 change)
{
	u32 last = (1u << hash_bucket_bits(map)) - 1;

	for (; home != bucket; home = (home + 1) & last) {
		u32 *overflow = &hash_bucket(map, home)->overflow;
		u32 seen = __atomic_load_n(overflow, __ATOMIC_RELAXED);

		while (seen < OVERFLOW_MANY &&
		       !__atomic_compare_exchange_n(overflow, &seen, seen + change, true,
						    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
			;
	}
}

UXDP_INLINE void slot_add(const struct uxdp_map *map, struct hash hash, u32 element)
{
	u32 last = (1u << hash_bucket_bits(map)) - 1;

	/* There are more slots than elements, so this ends. */
	for (u32 number = hash.home;; number = (number + 1) & last) {
		struct hash_bucket *bucket = hash_bucket(map, number);

		for (u32 slot = 0; slot < BUCKET_SLOTS; slot++) {
			u32 none = 0;

			if (__atomic_load_n(&bucket->element[slot], __ATOMIC_RELAXED) ||
			    !__atomic_compare_exchange_n(&bucket->element[slot], &none, element,
							 false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
				continue;
			if (number != hash.home)
				count_overflow(map, hash.home, number, 1);
			__atomic_store_n(&bucket->tag[slot], hash.tag, __ATOMIC_RELEASE);
			return;
		}
	}
}

UXDP_INLINE void slot_remove(const struct uxdp_map *map, u32 home, struct hash_slot found)
{
	struct hash_bucket *bucket = hash_bucket(map, found.bucket);

	__atomic_store_n(&bucket->tag[found.slot], 0, __ATOMIC_RELEASE);
	if (found.bucket != home)
		count_overflow(map, home, found.bucket, -1);
	__atomic_store_n(&bucket->element[found.slot], 0, __ATOMIC_RELEASE);
}

/* Remove an element from its bucket, wherever it is; false: it is in none. */
static bool hash_evict(const struct uxdp_map *map, u32 number, u32 home)
{
	u32 last = (1u << hash_bucket_bits(map)) - 1;
	u32 *lock = &hash_bucket(map, home)->lock;
	bool evicted = false;

	if (!seqlock_lock(lock))
		return false;
	for (u32 at = home;;) {
		struct hash_bucket *bucket = hash_bucket(map, at);
		u32 overflow = __atomic_load_n(&bucket->overflow, __ATOMIC_ACQUIRE);

		for (u32 slot = 0; slot < BUCKET_SLOTS && !evicted; slot++) {
			if (__atomic_load_n(&bucket->element[slot], __ATOMIC_RELAXED) != number + 1)
				continue;
			slot_remove(map, home, (struct hash_slot){at, slot, number + 1});
			evicted = true;
		}
		at = (at + 1) & last;
		if (evicted || !overflow || at == home)
			break;
	}
	seqlock_unlock(lock);
	return evicted;
}

/* --- values --- */

UXDP_INLINE void write_value(const struct uxdp_map *map, const struct hash_writer *writer,
			     u32 element, const void *value)
{
	if (!hash_is_percpu(map) || !writer->all) {
		copy_map_value(map, hash_value_of(map, writer->part, element - 1), value);
		return;
	}
	for (u32 cpu = 0; cpu < map->num_cpus; cpu++)
		copy_value(hash_value_of(map, hash_part(map, cpu), element - 1),
			   (const u8 *)value + cpu * hash_value_bytes(map), hash_value_bytes(map));
}

/* Key and first value of an element that nobody can find yet. */
UXDP_INLINE void fill_element(const struct uxdp_map *map, const struct hash_writer *writer,
			      u32 element, const void *key, const void *value)
{
	if (hash_is_percpu(map)) {
		for (u32 cpu = 0; cpu < map->num_cpus; cpu++) {
			void *part = hash_part(map, cpu);

			if (map->kind == BPF_MAP_TYPE_PERCPU_HASH)
				store_key(hash_key_of(map, part, element - 1), key, map->key_size);
			if (!writer->all && part != writer->part)
				zero_value(hash_value_of(map, part, element - 1),
					   hash_value_bytes(map));
		}
	}
	if (map->kind != BPF_MAP_TYPE_PERCPU_HASH)
		store_key(hash_key_of(map, NULL, element - 1), key, map->key_size);
	write_value(map, writer, element, value);
}

/* --- operations --- */

UXDP_INLINE s64 check_flags(u32 element, u64 flags)
{
	flags &= ~(u64)BPF_F_LOCK;
	if (element && flags == BPF_NOEXIST)
		return -EEXIST;
	if (!element && flags == BPF_EXIST)
		return -ENOENT;
	return 0;
}

UXDP_INLINE s64 hash_update_plain(const struct uxdp_map *map, const struct hash_writer *writer,
				  const void *key, const void *value, u64 flags)
{
	struct hash hash = hash_key(map, key);
	u32 *lock = &hash_bucket(map, hash.home)->lock;
	struct hash_slot found;
	u32 element;
	s64 error;

	if (!seqlock_lock(lock))
		return -ETIMEDOUT;
	found = hash_search(map, writer->part, key, hash);
	error = check_flags(found.element, flags);
	if (error)
		goto unlock;
	if (found.element && hash_is_percpu(map)) {
		write_value(map, writer, found.element, value);
	} else if (found.element && unlikely(flags & BPF_F_LOCK)) {
		copy_map_value_locked(map, hash_value_of(map, writer->part, found.element - 1),
				      value);
	} else if (found.element) {
		element = spare_of(map, writer->cpu);
		fill_element(map, writer, element, key, value);
		__atomic_store_n(&hash_bucket(map, found.bucket)->element[found.slot], element,
				 __ATOMIC_RELEASE);
		hash_header(map)->cpu[writer->cpu].spare = found.element;
	} else {
		element = element_take(map, writer->cpu);
		if (!element) {
			error = -E2BIG;
			goto unlock;
		}
		if (spare_is_free(map)) {
			u32 spare = spare_of(map, writer->cpu);

			hash_header(map)->cpu[writer->cpu].spare = element;
			element = spare;
		}
		fill_element(map, writer, element, key, value);
		slot_add(map, hash, element);
	}
unlock:
	seqlock_unlock(lock);
	return error;
}

UXDP_INLINE s64 hash_update_lru(const struct uxdp_map *map, const struct hash_writer *writer,
				const void *key, const void *value, u64 flags)
{
	struct hash hash = hash_key(map, key);
	u32 *lock = &hash_bucket(map, hash.home)->lock;
	u32 cpu = writer->cpu < map->num_cpus ? writer->cpu : 0;
	u32 element = 0, unused = 0;
	struct hash_slot found;
	s64 error;

	/* Before the bucket is locked, since eviction locks buckets: so a key that is there may
	 * cost another. */
	if (!hash_is_percpu(map) || flags != BPF_EXIST) {
		element = lru_pop(map, cpu, hash.home) + 1;
		if (!element) /* LRU_NONE + 1 */
			return -ENOMEM;
		store_key(hash_key_of(map, NULL, element - 1), key, map->key_size);
		if (!hash_is_percpu(map))
			write_value(map, writer, element, value);
		unused = element;
	}
	if (!seqlock_lock(lock)) {
		error = -ETIMEDOUT;
		goto give;
	}
	found = hash_search(map, writer->part, key, hash);
	error = check_flags(found.element, flags);
	if (error)
		goto unlock;
	if (found.element && hash_is_percpu(map)) {
		set_node_ref(lru_node(map, found.element - 1), 1);
		write_value(map, writer, found.element, value);
	} else if (found.element) {
		set_node_ref(lru_node(map, element - 1), 1);
		__atomic_store_n(&hash_bucket(map, found.bucket)->element[found.slot], element,
				 __ATOMIC_RELEASE);
		unused = found.element;
	} else {
		if (hash_is_percpu(map))
			fill_element(map, writer, element, key, value);
		slot_add(map, hash, element);
		unused = 0;
	}
unlock:
	seqlock_unlock(lock);
give:
	if (unused)
		lru_push(map, unused - 1);
	return error;
}

UXDP_INLINE s64 hash_update(const struct uxdp_map *map, const struct hash_writer *writer,
			    const void *key, const void *value, u64 flags)
{
	if (unlikely((has_lock(map) ? flags & ~(u64)BPF_F_LOCK : flags) > BPF_EXIST))
		return -EINVAL;
	return hash_is_lru(map) ? hash_update_lru(map, writer, key, value, flags)
				: hash_update_plain(map, writer, key, value, flags);
}

UXDP_INLINE s64 hash_delete(const struct uxdp_map *map, const struct hash_writer *writer,
			    const void *key)
{
	struct hash hash = hash_key(map, key);
	u32 *lock = &hash_bucket(map, hash.home)->lock;
	struct hash_slot found;

	if (!seqlock_lock(lock))
		return -ETIMEDOUT;
	found = hash_search(map, writer->part, key, hash);
	if (found.element)
		slot_remove(map, hash.home, found);
	seqlock_unlock(lock);
	if (!found.element)
		return -ENOENT;
	if (hash_is_lru(map))
		lru_push(map, found.element - 1);
	else
		element_give(map, writer->cpu, found.element);
	return 0;
}

#endif
