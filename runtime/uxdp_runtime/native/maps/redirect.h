/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * DEVMAP, CPUMAP and XSKMAP: where bpf_redirect_map sends a frame. (DEVMAP_HASH is a hash map.)
 *
 * An entry is one word of 64 bits, replaced as a whole; 0 is no entry. DEVMAP: struct
 * bpf_devmap_val, the interface and the number of a program. CPUMAP: struct bpf_cpumap_val, the
 * queue's size and a program. XSKMAP: what a program sees of the socket, which is its queue (struct
 * bpf_xdp_sock), and 1 in the upper half. bpf(2) takes descriptors and gives back ids; whoever
 * calls the control functions has made numbers of them that mean something here, and has checked
 * that they exist.
 *
 * Only control planes write these maps; the verifier lets no XDP program do so.
 *
 * References: kernel/bpf/devmap.c, kernel/bpf/cpumap.c, net/xdp/xskmap.c
 */
#ifndef UXDP_MAPS_REDIRECT_H
#define UXDP_MAPS_REDIRECT_H

#include "../memory.h"

#define CPUMAP_MAX_QSIZE 16384u
#define CPUMAP_MAX_CPUS 8192u /* the largest NR_CPUS that can be configured */
#define XSKMAP_PRESENT (1ull << 32)

UXDP_INLINE bool redirect_is_valid(const struct uxdp_map *map)
{
	u32 known = BPF_F_NUMA_NODE;

	if (map->kind != BPF_MAP_TYPE_CPUMAP)
		known |= BPF_F_RDONLY | BPF_F_WRONLY;
	/* libbpf reads the flags of an existing devmap back with what the kernel adds to them. */
	if (map->kind == BPF_MAP_TYPE_DEVMAP || map->kind == BPF_MAP_TYPE_DEVMAP_HASH)
		known |= BPF_F_RDONLY_PROG;
	if (map->max_entries == 0 || map->key_size != 4 || map->flags & ~known)
		return false;
	if (map->kind == BPF_MAP_TYPE_CPUMAP && map->max_entries > CPUMAP_MAX_CPUS)
		return false;
	return map->value_size == 4 || (map->value_size == 8 && map->kind != BPF_MAP_TYPE_XSKMAP);
}

UXDP_INLINE u64 redirect_bytes(const struct uxdp_map *map)
{
	return round_up_to(map->max_entries * 8ull, PAGE_SIZE);
}

/* The entry, or NULL. */
UXDP_INLINE u64 *redirect_lookup(const struct uxdp_map *map, u32 key)
{
	u64 *entry = (u64 *)map->store + key;

	if (unlikely(key >= map->max_entries) || !__atomic_load_n(entry, __ATOMIC_ACQUIRE))
		return NULL;
	return entry;
}

UXDP_SMALL static s64 redirect_update(const struct uxdp_map *map, u32 key, const void *value,
				      u64 flags)
{
	u64 *entry = (u64 *)map->store + key;
	u64 word = 0, old;
	u32 first, program;

	__builtin_memcpy(&word, value, map->value_size);
	first = word;
	program = word >> 32;
	if (flags > BPF_EXIST)
		return -EINVAL;
	if (key >= map->max_entries)
		return -E2BIG;

	if (map->kind == BPF_MAP_TYPE_XSKMAP) {
		word |= XSKMAP_PRESENT;
		old = __atomic_load_n(entry, __ATOMIC_RELAXED);
		if (old == word)
			return 0;
		if (old && flags == BPF_NOEXIST)
			return -EEXIST;
		if (!old && flags == BPF_EXIST)
			return -ENOENT;
	} else {
		if (flags == BPF_NOEXIST)
			return -EEXIST;
		if (map->kind == BPF_MAP_TYPE_CPUMAP && first > CPUMAP_MAX_QSIZE)
			return -EOVERFLOW;
		if (map->kind == BPF_MAP_TYPE_DEVMAP && !first && (s32)program > 0)
			return -EINVAL;
		if (!first) /* as if deleted */
			word = 0;
	}
	__atomic_store_n(entry, word, __ATOMIC_RELEASE);
	return 0;
}

UXDP_SMALL static s64 redirect_delete(const struct uxdp_map *map, u32 key)
{
	if (key >= map->max_entries)
		return -EINVAL;
	__atomic_store_n((u64 *)map->store + key, 0, __ATOMIC_RELEASE);
	return 0;
}

UXDP_SMALL static s64 redirect_read(const struct uxdp_map *map, u32 key, void *value)
{
	const u64 *entry = redirect_lookup(map, key);
	u64 word;

	if (map->kind == BPF_MAP_TYPE_XSKMAP) /* a descriptor cannot be given back */
		return -EOPNOTSUPP;
	if (!entry)
		return -ENOENT;
	word = __atomic_load_n(entry, __ATOMIC_RELAXED);
	__builtin_memcpy(value, &word, map->value_size);
	return 0;
}

#endif
