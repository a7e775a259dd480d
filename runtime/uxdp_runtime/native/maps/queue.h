/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * QUEUE and STACK: values without keys, first in first out or last in first out.
 *
 *	struct queue | max_entries values, each rounded up to 8 bytes
 *
 * "first" counts values that were taken from the front of a queue, or pushed out of it; "count" is
 * how many there are. Whoever reads or writes holds the lock, as in the kernel.
 *
 * Reference: kernel/bpf/queue_stack_maps.c
 */
#ifndef UXDP_MAPS_QUEUE_H
#define UXDP_MAPS_QUEUE_H

#include "../memory.h"

struct queue {
	u32 lock;
	u32 first; /* place of the oldest value */
	u32 count;
	u32 zero[13];
	u8 values[];
};

_Static_assert(sizeof(struct queue) == 64, "the lock has a cache line");

UXDP_INLINE bool queue_is_valid(const struct uxdp_map *map)
{
	u32 known = BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK;

	return map->max_entries && !map->key_size && map->value_size &&
	       map->value_size <= KMALLOC_MAX_SIZE && !(map->flags & ~known);
}

UXDP_INLINE u64 queue_bytes(const struct uxdp_map *map)
{
	return round_up_to(
	    sizeof(struct queue) + map->max_entries * round_up_to(map->value_size, 8), PAGE_SIZE);
}

/* The i-th value from the oldest on. */
UXDP_INLINE void *queue_value(const struct uxdp_map *map, u32 i)
{
	struct queue *queue = map->store;
	u64 place = (u64)queue->first + i;

	if (place >= map->max_entries)
		place -= map->max_entries;
	return queue->values + place * round_up_to(map->value_size, 8);
}

UXDP_INLINE s64 queue_push(const struct uxdp_map *map, const void *value, u64 flags)
{
	struct queue *queue = map->store;

	if (unlikely(flags & BPF_NOEXIST || flags > BPF_EXIST))
		return -EINVAL;
	if (!seqlock_lock(&queue->lock))
		return -EBUSY;
	if (queue->count == map->max_entries) {
		if (!(flags & BPF_EXIST)) {
			seqlock_unlock(&queue->lock);
			return -E2BIG;
		}
		queue->first = queue->first + 1 == map->max_entries ? 0 : queue->first + 1;
		queue->count--;
	}
	__builtin_memcpy(queue_value(map, queue->count), value, map->value_size);
	queue->count++;
	seqlock_unlock(&queue->lock);
	return 0;
}

/* The i-th value from the oldest on. */
UXDP_SMALL static s64 queue_read(const struct uxdp_map *map, void *value, u64 i)
{
	struct queue *queue = map->store;
	s64 error = -ENOENT;

	if (!seqlock_lock(&queue->lock))
		return -EBUSY;
	if (i < queue->count) {
		__builtin_memcpy(value, queue_value(map, i), map->value_size);
		error = 0;
	}
	seqlock_unlock(&queue->lock);
	return error;
}

/* The next value, which is taken if "take". */
UXDP_INLINE s64 queue_get(const struct uxdp_map *map, void *value, bool take)
{
	struct queue *queue = map->store;

	if (!seqlock_lock(&queue->lock))
		return -EBUSY;
	if (!queue->count) {
		seqlock_unlock(&queue->lock);
		__builtin_memset(value, 0, map->value_size);
		return -ENOENT;
	}
	__builtin_memcpy(value,
			 queue_value(map, map->kind == BPF_MAP_TYPE_STACK ? queue->count - 1 : 0),
			 map->value_size);
	if (take) {
		if (map->kind == BPF_MAP_TYPE_QUEUE)
			queue->first = queue->first + 1 == map->max_entries ? 0 : queue->first + 1;
		queue->count--;
	}
	seqlock_unlock(&queue->lock);
	return 0;
}

#endif
