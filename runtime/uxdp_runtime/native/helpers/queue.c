/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Maps without keys. Reference: kernel/bpf/helpers.c, bpf_map_push_elem() and the following */
#include "../maps/bloom.h"
#include "../maps/queue.h"

UXDP_HELPER s64 uxdp_helper_map_push_elem(const struct uxdp_map *map, const void *value, u64 flags)
{
	return map->kind == BPF_MAP_TYPE_BLOOM_FILTER ? bloom_push(map, value, flags)
						      : queue_push(map, value, flags);
}

UXDP_HELPER s64 uxdp_helper_map_pop_elem(const struct uxdp_map *map, void *value)
{
	return map->kind == BPF_MAP_TYPE_BLOOM_FILTER ? -EOPNOTSUPP : queue_get(map, value, true);
}

UXDP_HELPER s64 uxdp_helper_map_peek_elem(const struct uxdp_map *map, void *value)
{
	return map->kind == BPF_MAP_TYPE_BLOOM_FILTER ? bloom_peek(map, value)
						      : queue_get(map, value, false);
}
