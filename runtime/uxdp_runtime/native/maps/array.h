/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * ARRAY and PERCPU_ARRAY: elements of value_size rounded up to 8 bytes, one after the other.
 *
 * An ARRAY's store is laid out as the kernel's pages of a map with BPF_F_MMAPABLE, so it may be
 * these pages. A PERCPU_ARRAY's is one such array per CPU, each on pages of its own.
 *
 * Reference: kernel/bpf/arraymap.c
 */
#ifndef UXDP_MAPS_ARRAY_H
#define UXDP_MAPS_ARRAY_H

#include "../memory.h"

UXDP_INLINE u64 array_stride(const struct uxdp_map *map)
{
	return round_up_to(map->value_size, 8);
}

UXDP_INLINE u64 array_cpu_bytes(const struct uxdp_map *map)
{
	return round_up_to(map->max_entries * array_stride(map), PAGE_SIZE);
}

UXDP_INLINE bool array_is_valid(const struct uxdp_map *map)
{
	bool percpu = map->kind == BPF_MAP_TYPE_PERCPU_ARRAY;
	u32 known = BPF_F_NUMA_NODE | BPF_F_MMAPABLE | BPF_F_ACCESS_MASK | BPF_F_INNER_MAP;

	if (map->max_entries == 0 || map->key_size != 4 || map->value_size == 0 ||
	    map->flags & ~known)
		return false;
	if (percpu && map->flags & (BPF_F_NUMA_NODE | BPF_F_MMAPABLE | BPF_F_INNER_MAP))
		return false;
	return map->value_size <= (percpu ? PCPU_MIN_UNIT_SIZE : (u32)INT32_MAX);
}

/* part: the store, or one CPU's part of it. */
UXDP_INLINE void *array_element(const struct uxdp_map *map, void *part, u32 index)
{
	return (u8 *)part + index * array_stride(map);
}

UXDP_INLINE void *array_lookup(const struct uxdp_map *map, void *part, const void *key)
{
	u32 index = load_u32(key);

	return likely(index < map->max_entries) ? array_element(map, part, index) : NULL;
}

UXDP_INLINE s64 array_update(const struct uxdp_map *map, void *part, const void *key,
			     const void *value, u64 flags)
{
	u32 index = load_u32(key);

	if (unlikely((flags & ~(u64)BPF_F_LOCK) > BPF_EXIST))
		return -EINVAL;
	if (unlikely(index >= map->max_entries))
		return -E2BIG;
	if (unlikely(flags & BPF_NOEXIST))
		return -EEXIST;
	if (unlikely(flags & BPF_F_LOCK)) {
		if (!has_lock(map))
			return -EINVAL;
		copy_map_value_locked(map, array_element(map, part, index), value);
		return 0;
	}
	copy_map_value(map, array_element(map, part, index), value);
	return 0;
}

/* Of every map whose keys are the numbers below max_entries. */
UXDP_INLINE s64 index_next_key(const struct uxdp_map *map, const void *key, void *next)
{
	u32 index = key ? load_u32(key) : UINT32_MAX;

	if (index == map->max_entries - 1)
		return -ENOENT;
	index = index >= map->max_entries ? 0 : index + 1;
	__builtin_memcpy(next, &index, sizeof(index));
	return 0;
}

#endif
