/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH, DEVMAP_HASH and HASH_OF_MAPS: where what is.
 *
 *	header | free lists, one per CPU | buckets | elements | CPU 0's part | CPU 1's part | ...
 *
 * A bucket is one cache line: seven tags, seven element numbers, a lock. A key belongs to one home
 *bucket; if that is full, its element is registered in the next bucket that has room, and
 *"overflow" counts in every bucket passed over how many elements were, so that a search knows when
 *to stop. There are at least 1.75 slots per element, so 2 to 4 of 7 are taken on average when the
 *map is full.
 *
 * Elements have numbers and never move: a pointer to a value stays valid memory, whatever happens
 *to the element. An element is laid out as HASH, DEVMAP_HASH	key value LRU_HASH
 *struct lru_node key value PERCPU_HASH		none; each CPU's part holds, per element, a copy of
 *the key and its value LRU_PERCPU_HASH		struct lru_node key; each CPU's part holds the
 *values with keys and values rounded up to 8 bytes, and does not straddle cache lines needlessly.
 *
 * Memory that was never used is never touched: element numbers are given out in ascending order
 *("fresh"), and only those that come back are linked into free lists, through the first word of
 *their key.
 */
#ifndef UXDP_MAPS_HASH_LAYOUT_H
#define UXDP_MAPS_HASH_LAYOUT_H

#include "../memory.h"

#define BUCKET_SLOTS 7u
#define HASH_SEEDS 8u

struct hash_bucket {
	u32 tag[BUCKET_SLOTS];	   /* 0: no element */
	u32 overflow;		   /* sticks at OVERFLOW_MANY */
	u32 element[BUCKET_SLOTS]; /* number + 1; 0: free */
	u32 lock;		   /* of all elements whose home this is */
} __attribute__((aligned(64)));

#define OVERFLOW_MANY (1u << 31)

/* One per CPU, and one for the control plane. */
struct hash_cpu {
	u32 lock;  /* of what follows; LRU: of the CPU's local lists */
	u32 free;  /* number + 1 of the first free element */
	u32 spare; /* number + 1 of the element that the next replacement takes; 0: its own, never
		      used */
	u32 steal; /* LRU: the CPU whose local lists are tried next */
	/* An LRU: the common one is the control plane's, see lru.h. */
	u32 lru_lock;
	u32 lru_count[2]; /* elements in the active and the inactive list */
	u32 lru_rotation;
	u32 lru_fresh; /* as hash_header.fresh, up to lru_fresh_end */
	u32 lru_fresh_end;
	u32 zero[6];
} __attribute__((aligned(64)));

struct hash_header {
	u64 seed[HASH_SEEDS];
	u32 fresh; /* elements from this number on were never used */
	u32 control_lock;
	u32 zero[14];
	struct hash_cpu cpu[];
};

/* In front of the keys of LRU maps. Lists are linked by element numbers. */
struct lru_node {
	u32 next;
	u32 previous;
	u32 home; /* the bucket, from which eviction removes it */
	u8 ref;	  /* looked up since it was last considered for eviction */
	u8 list;  /* enum lru_list */
	u16 cpu;
};

_Static_assert(sizeof(struct hash_bucket) == 64, "a bucket is one cache line");
_Static_assert(sizeof(struct lru_node) == 16, "two words in front of a key");

UXDP_INLINE bool map_is_hash(const struct uxdp_map *map)
{
	return map->kind == BPF_MAP_TYPE_HASH || map->kind == BPF_MAP_TYPE_PERCPU_HASH ||
	       map->kind == BPF_MAP_TYPE_LRU_HASH || map->kind == BPF_MAP_TYPE_LRU_PERCPU_HASH ||
	       map->kind == BPF_MAP_TYPE_DEVMAP_HASH || map->kind == BPF_MAP_TYPE_HASH_OF_MAPS;
}

UXDP_INLINE bool hash_is_lru(const struct uxdp_map *map)
{
	return map->kind == BPF_MAP_TYPE_LRU_HASH || map->kind == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

UXDP_INLINE bool hash_is_percpu(const struct uxdp_map *map)
{
	return map->kind == BPF_MAP_TYPE_PERCPU_HASH || map->kind == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

/* Each CPU evicts from a list of its own. */
UXDP_INLINE bool hash_has_cpu_lrus(const struct uxdp_map *map)
{
	return hash_is_lru(map) && map->flags & BPF_F_NO_COMMON_LRU;
}

/* How many elements the map can hold. */
UXDP_INLINE u32 hash_capacity(const struct uxdp_map *map)
{
	u64 entries = map->max_entries;

	if (hash_has_cpu_lrus(map)) {
		entries = round_up_to(entries, map->num_cpus);
		if (entries > UINT32_MAX)
			entries -= map->num_cpus;
	}
	return entries;
}

UXDP_INLINE u32 hash_bucket_bits(const struct uxdp_map *map)
{
	return log2_up(((u64)hash_capacity(map) + 3) / 4);
}

/*
 * Elements beyond the map's capacity. HASH: what a replacement writes to, for each CPU and the
 * control plane. LRU: the heads of the lists, see lru.h.
 */
UXDP_INLINE u32 hash_extra_elements(const struct uxdp_map *map)
{
	if (hash_is_lru(map))
		return hash_has_cpu_lrus(map) ? 3 * map->num_cpus : 3 + 2 * map->num_cpus;
	return hash_is_percpu(map) ? 0 : map->num_cpus + 1;
}

UXDP_INLINE u64 hash_key_bytes(const struct uxdp_map *map)
{
	return round_up_to(map->key_size, 8);
}

UXDP_INLINE u64 hash_value_bytes(const struct uxdp_map *map)
{
	return round_up_to(map->value_size, 8);
}

/* Up to a cache line a power of two, so that none straddles. */
UXDP_INLINE u64 element_stride(u64 bytes)
{
	return bytes > 64 ? bytes : 1ull << log2_up(bytes);
}

/* Of the elements that all CPUs share; 0: there are none. */
UXDP_INLINE u64 hash_stride(const struct uxdp_map *map)
{
	u64 bytes = hash_is_lru(map) ? sizeof(struct lru_node) : 0;

	if (map->kind == BPF_MAP_TYPE_PERCPU_HASH)
		return 0;
	bytes += hash_key_bytes(map);
	if (!hash_is_percpu(map))
		bytes += hash_value_bytes(map);
	return element_stride(bytes);
}

/* Of what each CPU has for each element; 0: nothing. */
UXDP_INLINE u64 hash_cpu_stride(const struct uxdp_map *map)
{
	if (map->kind == BPF_MAP_TYPE_PERCPU_HASH)
		return element_stride(hash_key_bytes(map) + hash_value_bytes(map));
	return hash_is_percpu(map) ? hash_value_bytes(map) : 0;
}

UXDP_INLINE u64 hash_buckets_offset(const struct uxdp_map *map)
{
	return round_up_to(sizeof(struct hash_header) +
			       (map->num_cpus + 1ull) * sizeof(struct hash_cpu),
			   PAGE_SIZE);
}

UXDP_INLINE u64 hash_elements_offset(const struct uxdp_map *map)
{
	return round_up_to(hash_buckets_offset(map) +
			       (sizeof(struct hash_bucket) << hash_bucket_bits(map)),
			   PAGE_SIZE);
}

UXDP_INLINE u64 hash_cpu_offset(const struct uxdp_map *map, u32 cpu)
{
	u64 elements = (u64)hash_capacity(map) + hash_extra_elements(map);
	u64 shared =
	    round_up_to(hash_elements_offset(map) + elements * hash_stride(map), PAGE_SIZE);

	return shared + cpu * round_up_to(hash_capacity(map) * hash_cpu_stride(map), PAGE_SIZE);
}

UXDP_INLINE u64 hash_bytes(const struct uxdp_map *map)
{
	return hash_cpu_offset(map, map->num_cpus);
}

UXDP_INLINE struct hash_header *hash_header(const struct uxdp_map *map)
{
	return map->store;
}

UXDP_INLINE struct hash_bucket *hash_bucket(const struct uxdp_map *map, u32 number)
{
	return (struct hash_bucket *)((u8 *)map->store + hash_buckets_offset(map)) + number;
}

UXDP_INLINE u8 *hash_element(const struct uxdp_map *map, u32 number)
{
	return (u8 *)map->store + hash_elements_offset(map) + number * hash_stride(map);
}

UXDP_INLINE struct lru_node *lru_node(const struct uxdp_map *map, u32 number)
{
	return (struct lru_node *)hash_element(map, number);
}

/* part: the part of the CPU that asks; not used by maps that have none. */
UXDP_INLINE u64 *hash_key_of(const struct uxdp_map *map, void *part, u32 number)
{
	if (map->kind == BPF_MAP_TYPE_PERCPU_HASH)
		return (u64 *)((u8 *)part + number * hash_cpu_stride(map));
	return (u64 *)(hash_element(map, number) +
		       (hash_is_lru(map) ? sizeof(struct lru_node) : 0));
}

UXDP_INLINE u8 *hash_value_of(const struct uxdp_map *map, void *part, u32 number)
{
	if (map->kind == BPF_MAP_TYPE_LRU_PERCPU_HASH)
		return (u8 *)part + number * hash_cpu_stride(map);
	return (u8 *)hash_key_of(map, part, number) + hash_key_bytes(map);
}

UXDP_INLINE void *hash_part(const struct uxdp_map *map, u32 cpu)
{
	return (u8 *)map->store + hash_cpu_offset(map, cpu);
}

/* htab_map_alloc_check() and htab_map_alloc() */
UXDP_INLINE bool hash_is_valid(const struct uxdp_map *map)
{
	u32 known = BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK |
		    BPF_F_ZERO_SEED;
	bool cpu_lrus = map->flags & BPF_F_NO_COMMON_LRU;

	if (map->flags & ~known || (!hash_is_lru(map) && cpu_lrus))
		return false;
	if (hash_is_lru(map) && map->flags & BPF_F_NO_PREALLOC)
		return false;
	if (map->flags & BPF_F_NUMA_NODE && (hash_is_percpu(map) || cpu_lrus))
		return false;
	if (map->max_entries == 0 || map->key_size == 0 || map->value_size == 0)
		return false;
	if ((u64)map->key_size + map->value_size >=
	    KMALLOC_MAX_SIZE - 48) /* sizeof(struct htab_elem) */
		return false;
	if (hash_is_percpu(map) && hash_value_bytes(map) > PCPU_MIN_UNIT_SIZE)
		return false;
	/* The kernel's table of 16-byte buckets, one per element rounded up to a power of two, has
	 * < 4 GiB. */
	return hash_capacity(map) <= 1u << 27;
}

#endif
