/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * PROG_ARRAY: the targets of tail calls. ARRAY_OF_MAPS: see nested.h; the entries are laid out and
 * changed alike.
 *
 * An entry is the number of a program in the compiled module, plus 1; 0 is no entry. Values of the
 * control functions are these too. Programs cannot read the map, and only control planes write it.
 *
 * Reference: kernel/bpf/arraymap.c, fd_array_*
 */
#ifndef UXDP_MAPS_PROG_ARRAY_H
#define UXDP_MAPS_PROG_ARRAY_H

#include "../memory.h"

UXDP_INLINE bool prog_array_is_valid(const struct uxdp_map *map)
{
	u32 known = BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY;

	return map->max_entries && map->key_size == 4 && map->value_size == 4 &&
	       !(map->flags & ~known);
}

UXDP_INLINE u64 prog_array_bytes(const struct uxdp_map *map)
{
	return round_up_to(map->max_entries * 4ull, PAGE_SIZE);
}

UXDP_SMALL static s64 prog_array_read(const struct uxdp_map *map, u32 key, void *value)
{
	u32 entry;

	if (key >= map->max_entries)
		return -ENOENT;
	entry = __atomic_load_n((u32 *)map->store + key, __ATOMIC_ACQUIRE);
	if (!entry)
		return -ENOENT;
	__builtin_memcpy(value, &entry, sizeof(entry));
	return 0;
}

UXDP_SMALL static s64 prog_array_update(const struct uxdp_map *map, u32 key, const void *value,
					u64 flags)
{
	u32 entry = load_u32(value);

	if (flags != BPF_ANY)
		return -EINVAL;
	if (key >= map->max_entries)
		return -E2BIG;
	if (!entry)
		return -EINVAL;
	__atomic_store_n((u32 *)map->store + key, entry, __ATOMIC_RELEASE);
	return 0;
}

UXDP_SMALL static s64 prog_array_delete(const struct uxdp_map *map, u32 key)
{
	if (key >= map->max_entries)
		return -E2BIG;
	return __atomic_exchange_n((u32 *)map->store + key, 0, __ATOMIC_ACQ_REL) ? 0 : -ENOENT;
}

#endif
