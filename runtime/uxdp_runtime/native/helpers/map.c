/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bpf_map_lookup_elem and its like, for every kind of map that programs may use them on. The
 * definition is a constant where these are inlined, so nothing is left of the other kinds.
 */
#include "../maps/array.h"
#include "../maps/hash_update.h"
#include "../maps/lpm_update.h"
#include "../maps/nested.h"
#include "../maps/redirect.h"

UXDP_INLINE struct hash_writer worker_writer(const struct uxdp_map *map)
{
	return (struct hash_writer){.cpu = uxdp_worker.cpu, .all = false, .part = map->cpu_store};
}

UXDP_HELPER void *uxdp_helper_map_lookup_elem(const struct uxdp_map *map, const void *key)
{
	if (map->kind == BPF_MAP_TYPE_HASH_OF_MAPS)
		return inner_of(map, hash_lookup(map, key));
	if (map_is_hash(map))
		return hash_lookup(map, key);
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
		return array_lookup(map, map->store, key);
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return array_lookup(map, map->cpu_store, key);
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_lookup(map, key);
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
		return array_of_maps_lookup(map, key);
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_CPUMAP:
	case BPF_MAP_TYPE_XSKMAP:
		return redirect_lookup(map, load_u32(key));
	default:
		return NULL;
	}
}

UXDP_HELPER s64 uxdp_helper_map_update_elem(const struct uxdp_map *map, const void *key,
					    const void *value, u64 flags)
{
	if (map_is_hash(map)) {
		struct hash_writer writer = worker_writer(map);

		return hash_update(map, &writer, key, value, flags);
	}
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
		return array_update(map, map->store, key, value, flags);
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return array_update(map, map->cpu_store, key, value, flags);
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_update(map, key, value, flags);
	default:
		return -EOPNOTSUPP;
	}
}

UXDP_HELPER s64 uxdp_helper_map_delete_elem(const struct uxdp_map *map, const void *key)
{
	if (map_is_hash(map)) {
		struct hash_writer writer = worker_writer(map);

		return hash_delete(map, &writer, key);
	}
	switch (map->kind) {
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_delete(map, key);
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return -EINVAL;
	default:
		return -EOPNOTSUPP;
	}
}

UXDP_HELPER const struct uxdp_map *uxdp_map_here(const struct uxdp_map *map, struct uxdp_map *here)
{
	if (!map->inner)
		return map;
	inner_here(map, here);
	return here;
}

UXDP_HELPER void uxdp_inner_here(const struct uxdp_map *map, struct uxdp_map *here)
{
	inner_here(map, here);
}
