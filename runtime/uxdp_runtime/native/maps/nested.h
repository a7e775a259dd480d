/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * ARRAY_OF_MAPS and HASH_OF_MAPS: maps whose values are maps.
 *
 * An outer map's value is a number, replaced as a whole: that of a declared map, counted from 1, or
 * with INNER_POOLED that of a map in the pool; 0 is none. The pool is memory of all maps that
 * control planes make while programs run, one for an object:
 *
 *	page 0 | how far each worker is, one line each | descriptors | the maps' stores
 *
 * It is reserved at once and touched where it is used, so that every process that has it mapped
 * sees new maps without being told, wherever it is mapped: a descriptor's "store" is an offset.
 * Only control planes change it. What they took out of an outer map is used again when every
 * worker has begun another burst, so that a program may go on with an inner map that was replaced
 * after it was looked up.
 *
 * A program's pointer to an inner map is that of a declared map's definition or of a descriptor.
 * Either is made a definition with addresses where it is used, see uxdp_inner_here().
 *
 * Reference: kernel/bpf/map_in_map.c
 */
#ifndef UXDP_MAPS_NESTED_H
#define UXDP_MAPS_NESTED_H

#include "../memory.h"

#define INNER_POOLED (1u << 31)
#define POOL_DESCRIPTORS 65536u

struct pool_worker {
	u64 burst; /* odd while one is under way, and another number for each */
	u64 zero[7];
};

struct pool_map {
	struct uxdp_map map; /* "inner" is 1, "store" an offset */
	u64 cpu_first;	     /* uxdp_store_cpu_offset() of CPU 0, and how much more of the next */
	u64 cpu_stride;
};

_Static_assert(sizeof(struct pool_worker) == 64, "workers do not share cache lines");
_Static_assert(sizeof(struct pool_map) == 64, "a descriptor is one cache line");

/* Symbols that the loader and the compiler resolve, if an object has maps of maps. */
extern u8 uxdp_pool[];
extern const struct uxdp_map *const uxdp_declared[];

UXDP_INLINE struct pool_worker *pool_worker(u32 cpu)
{
	return (struct pool_worker *)(uxdp_pool + PAGE_SIZE) + cpu;
}

UXDP_INLINE const struct pool_map *pool_map(u32 number, u32 num_cpus)
{
	u64 workers = round_up_to(num_cpus * sizeof(struct pool_worker), PAGE_SIZE);

	return (const struct pool_map *)(uxdp_pool + PAGE_SIZE + workers) + number;
}

/* Only this worker writes its line. After a worker that died in a burst, the number stays odd. */
UXDP_INLINE void burst_begins(void)
{
	u64 *burst = &pool_worker(uxdp_worker.cpu)->burst;

	__atomic_exchange_n(burst, (*burst + 2) | 1, __ATOMIC_SEQ_CST);
#ifndef UXDP_TSAN
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* before any entry is read */
#endif
}

UXDP_INLINE void burst_ends(void)
{
	u64 *burst = &pool_worker(uxdp_worker.cpu)->burst;

	__atomic_store_n(burst, *burst + 1, __ATOMIC_RELEASE);
}

/* The inner map that an outer one's entry stands for, or NULL. */
UXDP_INLINE void *inner_of(const struct uxdp_map *map, const u32 *entry)
{
	u32 number = entry ? __atomic_load_n(entry, __ATOMIC_ACQUIRE) : 0;

	if (unlikely(!number))
		return NULL;
	if (number & INNER_POOLED)
		return (void *)pool_map(number & ~INNER_POOLED, map->num_cpus);
	return (void *)uxdp_declared[number - 1];
}

UXDP_INLINE void *array_of_maps_lookup(const struct uxdp_map *map, const void *key)
{
	u32 index = load_u32(key);

	return likely(index < map->max_entries) ? inner_of(map, (const u32 *)map->store + index)
						: NULL;
}

/* A definition with this worker's addresses, of what a program has a pointer to. */
UXDP_INLINE void inner_here(const struct uxdp_map *found, struct uxdp_map *here)
{
	*here = *found;
	if (found->inner) {
		const struct pool_map *pooled = (const struct pool_map *)found;

		here->store = uxdp_pool + (u64)found->store;
		here->cpu_store = uxdp_pool + (u64)found->store + pooled->cpu_first +
				  uxdp_worker.cpu * pooled->cpu_stride;
	}
}

#endif
