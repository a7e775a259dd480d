/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Maps as bpf(2) sees them: the UXDP_CONTROL functions of abi.h. They may run on any thread, beside
 * workers and beside each other, and depend on nothing but the map.
 *
 * Reference: kernel/bpf/syscall.c, map_lookup_elem() and the following
 */
#include "clock.h"
#include "maps/array.h"
#include "maps/bloom.h"
#include "maps/hash_control.h"
#include "maps/lpm_update.h"
#include "maps/perf.h"
#include "maps/prog_array.h"
#include "maps/queue.h"
#include "maps/redirect.h"
#include "maps/user_ringbuf.h"
#include "timers.h"

UXDP_CONTROL u64 uxdp_store_bytes(const struct uxdp_map *map)
{
	if (map->num_cpus == 0)
		return 0;
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
		return array_is_valid(map) ? array_cpu_bytes(map) : 0;
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return array_is_valid(map) ? map->num_cpus * array_cpu_bytes(map) : 0;
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
		return hash_is_valid(map) ? hash_bytes(map) : 0;
	case BPF_MAP_TYPE_DEVMAP_HASH:
		return redirect_is_valid(map) && map->max_entries <= 1u << 27 ? hash_bytes(map) : 0;
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_is_valid(map) ? lpm_bytes(map) : 0;
	case BPF_MAP_TYPE_HASH_OF_MAPS:
		return hash_is_valid(map) && map->value_size == 4 ? hash_bytes(map) : 0;
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_PROG_ARRAY:
		return prog_array_is_valid(map) ? prog_array_bytes(map) : 0;
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_CPUMAP:
	case BPF_MAP_TYPE_XSKMAP:
		return redirect_is_valid(map) ? redirect_bytes(map) : 0;
	case BPF_MAP_TYPE_RINGBUF:
	case BPF_MAP_TYPE_USER_RINGBUF:
		return ringbuf_is_valid(map) ? ringbuf_bytes(map) : 0;
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return queue_is_valid(map) ? queue_bytes(map) : 0;
	case BPF_MAP_TYPE_BLOOM_FILTER:
		return bloom_is_valid(map) ? bloom_bytes(map) : 0;
	case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
		return perf_is_valid(map) ? map->num_cpus * perf_cpu_bytes() : 0;
	default:
		return 0;
	}
}

/* 0 for maps that have no part for each CPU. */
UXDP_CONTROL u64 uxdp_store_cpu_offset(const struct uxdp_map *map, u32 cpu)
{
	switch (map->kind) {
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return cpu * array_cpu_bytes(map);
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
		return hash_cpu_offset(map, cpu);
	case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
		return cpu * perf_cpu_bytes();
	default:
		return 0;
	}
}

UXDP_CONTROL s64 uxdp_store_init(const struct uxdp_map *map)
{
	if (!uxdp_store_bytes(map))
		return -EINVAL;
	if (map_is_hash(map))
		hash_init(map, clock_ns(CLOCK_MONOTONIC) ^ (u64)map->store << 20 ^
				   (u64)__builtin_frame_address(0));
	else if (map->kind == BPF_MAP_TYPE_BLOOM_FILTER && !(map->flags & BPF_F_ZERO_SEED))
		*(u32 *)map->store =
		    clock_ns(CLOCK_MONOTONIC) * 0x9e3779b1u ^ (u64)map->store >> 12;
	else if (map->kind == BPF_MAP_TYPE_RINGBUF)
		((struct ringbuf *)map->store)->mask = map->max_entries - 1;
	else if (map->kind == BPF_MAP_TYPE_PERF_EVENT_ARRAY)
		for (u32 cpu = 0; cpu < map->num_cpus; cpu++)
			((struct ringbuf *)((u8 *)map->store + cpu * perf_cpu_bytes()))->mask =
			    UXDP_PERF_BYTES - 1;
	return 0;
}

UXDP_CONTROL s64 uxdp_map_lookup(const struct uxdp_map *map, const void *key, void *value)
{
	const void *found;

	if (map->flags & BPF_F_WRONLY)
		return -EPERM;
	if (map_is_hash(map))
		return hash_control_lookup(map, key, value);
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
		found = array_lookup(map, map->store, key);
		break;
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		for (u32 cpu = 0; cpu < map->num_cpus; cpu++) {
			found =
			    array_lookup(map, (u8 *)map->store + cpu * array_cpu_bytes(map), key);
			if (!found)
				return -ENOENT;
			read_value((u8 *)value + cpu * array_stride(map), found, array_stride(map));
		}
		return 0;
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return queue_get(map, value, false);
	case BPF_MAP_TYPE_BLOOM_FILTER:
		return bloom_peek(map, value);
	case BPF_MAP_TYPE_LPM_TRIE:
		found = lpm_lookup(map, key);
		break;
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_PROG_ARRAY:
		return prog_array_read(map, load_u32(key), value);
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_CPUMAP:
	case BPF_MAP_TYPE_XSKMAP:
		return redirect_read(map, load_u32(key), value);
	default:
		return -ENOTSUPP;
	}
	if (!found)
		return -ENOENT;
	read_map_value(map, value, found);
	return 0;
}

/* __dev_map_hash_update_elem(): only BPF_NOEXIST is looked at. */
static s64 devmap_hash_update(const struct uxdp_map *map, const void *key, const void *value,
			      u64 flags)
{
	if (flags > BPF_EXIST || !load_u32(value))
		return -EINVAL;
	return hash_control_update(map, key, value, flags & BPF_NOEXIST);
}

/* bpf_percpu_array_update() */
static s64 percpu_array_update(const struct uxdp_map *map, const void *key, const void *value,
			       u64 flags)
{
	u32 index = load_u32(key);

	if (flags > BPF_EXIST)
		return -EINVAL;
	if (index >= map->max_entries)
		return -E2BIG;
	if (flags == BPF_NOEXIST)
		return -EEXIST;
	for (u32 cpu = 0; cpu < map->num_cpus; cpu++)
		copy_value(array_element(map, (u8 *)map->store + cpu * array_cpu_bytes(map), index),
			   (const u8 *)value + cpu * array_stride(map), array_stride(map));
	return 0;
}

UXDP_CONTROL s64 uxdp_map_update(const struct uxdp_map *map, const void *key, const void *value,
				 u64 flags)
{
	if (map->flags & BPF_F_RDONLY)
		return -EPERM;
	if (flags & BPF_F_LOCK && !has_lock(map))
		return -EINVAL;
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
		return array_update(map, map->store, key, value, flags);
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return percpu_array_update(map, key, value, flags);
	case BPF_MAP_TYPE_DEVMAP_HASH:
		return devmap_hash_update(map, key, value, flags);
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return queue_push(map, value, flags);
	case BPF_MAP_TYPE_BLOOM_FILTER:
		return bloom_push(map, value, flags);
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_update(map, key, value, flags);
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_PROG_ARRAY:
		return prog_array_update(map, load_u32(key), value, flags);
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_CPUMAP:
	case BPF_MAP_TYPE_XSKMAP:
		return redirect_update(map, load_u32(key), value, flags);
	default:
		return map_is_hash(map) ? hash_control_update(map, key, value, flags) : -ENOTSUPP;
	}
}

UXDP_CONTROL s64 uxdp_map_delete(const struct uxdp_map *map, const void *key)
{
	if (map->flags & BPF_F_RDONLY)
		return -EPERM;
	if (map_is_hash(map))
		return hash_control_delete(map, key);
	switch (map->kind) {
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return -EINVAL;
	case BPF_MAP_TYPE_BLOOM_FILTER:
		return -EOPNOTSUPP;
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_delete(map, key);
	case BPF_MAP_TYPE_ARRAY_OF_MAPS:
	case BPF_MAP_TYPE_PROG_ARRAY:
		return prog_array_delete(map, load_u32(key));
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_CPUMAP:
	case BPF_MAP_TYPE_XSKMAP:
		return redirect_delete(map, load_u32(key));
	default:
		return -ENOTSUPP;
	}
}

UXDP_CONTROL s64 uxdp_map_next_key(const struct uxdp_map *map, const void *key, void *next)
{
	if (map->flags & BPF_F_WRONLY)
		return -EPERM;
	if (map_is_hash(map))
		return hash_next_key(map, key, next);
	switch (map->kind) {
	case BPF_MAP_TYPE_LPM_TRIE:
		return lpm_next_key(map, key, next);
	case BPF_MAP_TYPE_QUEUE:
	case BPF_MAP_TYPE_STACK:
		return -EINVAL;
	case BPF_MAP_TYPE_BLOOM_FILTER:
		return -EOPNOTSUPP;
	case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
	case BPF_MAP_TYPE_RINGBUF:
	case BPF_MAP_TYPE_USER_RINGBUF:
		return -ENOTSUPP;
	default:
		return index_next_key(map, key, next);
	}
}

UXDP_CONTROL s64 uxdp_map_pop(const struct uxdp_map *map, void *value)
{
	if (map->flags & (BPF_F_RDONLY | BPF_F_WRONLY))
		return -EPERM;
	if (map->kind != BPF_MAP_TYPE_QUEUE && map->kind != BPF_MAP_TYPE_STACK)
		return -EOPNOTSUPP;
	return queue_get(map, value, true);
}

UXDP_CONTROL s64 uxdp_map_read_value(const struct uxdp_map *map, u64 place, void *value)
{
	if (map->flags & BPF_F_WRONLY)
		return -EPERM;
	if (map->kind != BPF_MAP_TYPE_QUEUE && map->kind != BPF_MAP_TYPE_STACK)
		return -EOPNOTSUPP;
	return queue_read(map, value, place);
}

UXDP_CONTROL s64 uxdp_map_read(const struct uxdp_map *map, void *key, bool first, void *keys,
			       void *values, u64 count)
{
	u64 value_bytes = map->value_size, read = 0;

	if (map->kind == BPF_MAP_TYPE_PERCPU_ARRAY || map->kind == BPF_MAP_TYPE_PERCPU_HASH ||
	    map->kind == BPF_MAP_TYPE_LRU_PERCPU_HASH)
		value_bytes = map->num_cpus * round_up_to(map->value_size, 8);
	while (read < count) {
		s64 result = uxdp_map_next_key(map, first ? NULL : key, key);

		if (result == -ENOENT)
			break;
		if (result < 0)
			return result;
		first = false;
		result = uxdp_map_lookup(map, key, (u8 *)values + read * value_bytes);
		if (result == -ENOENT) /* deleted meanwhile, or an empty place */
			continue;
		if (result < 0)
			return result;
		__builtin_memcpy((u8 *)keys + read * map->key_size, key, map->key_size);
		read++;
	}
	return read;
}

UXDP_CONTROL u64 uxdp_timers_bytes(const struct uxdp_map *maps, u32 num_maps, const u8 *with_timers,
				   u32 num_cpus)
{
	u64 places = 0;

	for (u32 i = 0; i < num_maps; i++)
		places += with_timers[i] ? timer_slots(&maps[i]) : 0;
	if (!places)
		return 0;
	return timer_heaps_offset(places, num_maps) + num_cpus * timer_heap_bytes(places);
}

UXDP_CONTROL void uxdp_timers_init(struct uxdp_timers *timers, const struct uxdp_map *maps,
				   u32 num_maps, const u8 *with_timers, u32 num_cpus,
				   u64 generation)
{
	timers->generation = generation;
	timers->num_cpus = num_cpus;
	timers->num_maps = num_maps;
	for (u32 i = 0; i < num_maps; i++) {
		timers->first_place[i] = timers->num_places;
		timers->num_places += with_timers[i] ? timer_slots(&maps[i]) : 0;
	}
}

UXDP_CONTROL u64 *uxdp_timers_next(struct uxdp_timers *timers, u32 cpu)
{
	return &timer_heap(timers, cpu)->next_ns;
}

UXDP_CONTROL s64 uxdp_ringbuf_produce(const struct uxdp_map *map, const void *data, u64 len)
{
	if (map->kind != BPF_MAP_TYPE_USER_RINGBUF)
		return -EINVAL;
	return user_ringbuf_produce(map, data, len);
}

UXDP_CONTROL s64 uxdp_ringbuf_consume(const struct uxdp_map *map, void *buffer, u64 len)
{
	return map->kind == BPF_MAP_TYPE_RINGBUF ? ringbuf_consume(map, buffer, len) : -EINVAL;
}

UXDP_CONTROL s64 uxdp_ringbuf_read(const struct uxdp_map *map, u64 *position, void *buffer, u64 len)
{
	if (map->kind != BPF_MAP_TYPE_RINGBUF)
		return -EINVAL;
	return ringbuf_read(map, position, buffer, len);
}
