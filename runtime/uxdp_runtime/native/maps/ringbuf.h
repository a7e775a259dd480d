/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * RINGBUF: records of any length, from all CPUs in one order, for one reader.
 *
 *	page 0: lock | page 1: consumer position | page 2: producer position | ring | room for a
 *record's end
 *
 * Positions, record headers and what counts as full are the kernel's. The kernel maps the ring
 *twice in a row, so that a record that wraps is contiguous; here such a record simply continues
 *behind the ring, in memory that is touched by nothing else. A record's header says how many pages
 *it is away from the store, by which submitting it finds the store again.
 *
 * Nobody sleeps here. "wakeups" counts how often the kernel would have woken the reader, for a
 *runtime that passes records on.
 *
 * Reference: kernel/bpf/ringbuf.c
 */
#ifndef UXDP_MAPS_RINGBUF_H
#define UXDP_MAPS_RINGBUF_H

#include "../memory.h"

struct ringbuf {
	u32 lock;
	u32 zero;
	u64 mask;
	u64 pending; /* position of the oldest record that is not submitted yet */
	u64 wakeups;
	u64 lost; /* records of a PERF_EVENT_ARRAY that found no room */
	u8 pad0[PAGE_SIZE - 40];
	u64 consumer;
	u8 pad1[PAGE_SIZE - 8];
	u64 producer;
	u8 pad2[PAGE_SIZE - 8];
	u8 data[];
};

struct ringbuf_record {
	u32 len; /* and the busy and the discard bit */
	u32 page_offset;
};

_Static_assert(offsetof(struct ringbuf, consumer) == PAGE_SIZE,
	       "positions have pages of their own");
_Static_assert(offsetof(struct ringbuf, data) == 3 * PAGE_SIZE, "the ring follows the positions");
_Static_assert(offsetof(struct ringbuf, lost) == 32, "control planes read it");

#define RINGBUF_MAX_RECORD_SZ (UINT32_MAX / 4)

UXDP_INLINE bool ringbuf_is_valid(const struct uxdp_map *map)
{
	u32 size = map->max_entries;

	return !(map->flags & ~(u32)BPF_F_NUMA_NODE) && !map->key_size && !map->value_size &&
	       size && !(size & (size - 1)) && !(size % PAGE_SIZE);
}

UXDP_INLINE u64 ringbuf_bytes(const struct uxdp_map *map)
{
	return sizeof(struct ringbuf) + 2ull * map->max_entries;
}

UXDP_INLINE u64 record_bytes(u32 len)
{
	return round_up_to(
	    (u64)(len & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT)) + BPF_RINGBUF_HDR_SZ, 8);
}

UXDP_INLINE struct ringbuf_record *ringbuf_record(struct ringbuf *ring, u64 mask, u64 position)
{
	return (struct ringbuf_record *)(ring->data + (position & mask));
}

UXDP_INLINE void *ringbuf_reserve(const struct uxdp_map *map, u64 size)
{
	struct ringbuf *ring = map->store;
	struct ringbuf_record *record;
	u64 mask = map->max_entries - 1;
	u64 bytes, consumer, producer, pending;

	if (unlikely(size > RINGBUF_MAX_RECORD_SZ))
		return NULL;
	bytes = round_up_to(size + BPF_RINGBUF_HDR_SZ, 8);
	if (unlikely(bytes > map->max_entries))
		return NULL;

	consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
	if (!seqlock_lock(&ring->lock))
		return NULL;
	producer = ring->producer;
	for (pending = ring->pending; pending < producer;) {
		u32 len =
		    __atomic_load_n(&ringbuf_record(ring, mask, pending)->len, __ATOMIC_ACQUIRE);

		if (len & BPF_RINGBUF_BUSY_BIT)
			break;
		pending += record_bytes(len);
	}
	ring->pending = pending;
	if (producer + bytes - consumer > mask || producer + bytes - pending > mask) {
		seqlock_unlock(&ring->lock);
		return NULL;
	}
	record = ringbuf_record(ring, mask, producer);
	record->page_offset = ((u8 *)record - (u8 *)ring) / PAGE_SIZE;
	__atomic_store_n(&record->len, (u32)size | BPF_RINGBUF_BUSY_BIT, __ATOMIC_RELAXED);
	__atomic_store_n(&ring->producer, producer + bytes, __ATOMIC_RELEASE);
	seqlock_unlock(&ring->lock);
	return record + 1;
}

UXDP_INLINE void ringbuf_commit(void *sample, u64 flags, bool discard)
{
	struct ringbuf_record *record = (struct ringbuf_record *)sample - 1;
	u64 page = (u64)record & ~(PAGE_SIZE - 1);
	struct ringbuf *ring = (struct ringbuf *)(page - record->page_offset * PAGE_SIZE);
	u32 len = __atomic_load_n(&record->len, __ATOMIC_RELAXED) & ~BPF_RINGBUF_BUSY_BIT;
	u64 consumer;

	if (discard)
		len |= BPF_RINGBUF_DISCARD_BIT;
	__atomic_exchange_n(&record->len, len, __ATOMIC_SEQ_CST);
	consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE) & ring->mask;
	if (flags & BPF_RB_FORCE_WAKEUP ||
	    (consumer == (u64)((u8 *)record - ring->data) && !(flags & BPF_RB_NO_WAKEUP)))
		__atomic_fetch_add(&ring->wakeups, 1, __ATOMIC_RELAXED);
}

UXDP_INLINE u64 ringbuf_query(const struct uxdp_map *map, u64 what)
{
	const struct ringbuf *ring = map->store;
	u64 consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
	u64 producer = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE);

	switch (what) {
	case BPF_RB_AVAIL_DATA:
		return producer - consumer;
	case BPF_RB_RING_SIZE:
		return map->max_entries;
	case BPF_RB_CONS_POS:
		return consumer;
	case BPF_RB_PROD_POS:
		return producer;
	default:
		return 0;
	}
}

/* Copy submitted records from *position on, and move it behind them; see uxdp_ringbuf_read(). */
UXDP_SMALL static s64 ringbuf_read(const struct uxdp_map *map, u64 *position, u8 *buffer, u64 len)
{
	struct ringbuf *ring = map->store;
	u64 producer = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE);
	u64 used = 0;

	while (*position < producer) {
		struct ringbuf_record *record =
		    ringbuf_record(ring, map->max_entries - 1, *position);
		u32 seen = __atomic_load_n(&record->len, __ATOMIC_ACQUIRE);
		u64 bytes = record_bytes(seen);

		if (seen & BPF_RINGBUF_BUSY_BIT)
			break;
		if (!(seen & BPF_RINGBUF_DISCARD_BIT)) {
			struct ringbuf_record header = {.len = seen};

			if (bytes > len - used) {
				if (!used)
					return -ENOSPC;
				break;
			}
			__builtin_memset(buffer + used + bytes - 8, 0, 8);
			__builtin_memcpy(buffer + used, &header, sizeof(header));
			__builtin_memcpy(buffer + used + sizeof(header), record + 1, seen);
			used += bytes;
		}
		*position += bytes;
	}
	return used;
}

/* Take submitted records out of the ring, see uxdp_ringbuf_consume(). */
UXDP_SMALL static s64 ringbuf_consume(const struct uxdp_map *map, u8 *buffer, u64 len)
{
	struct ringbuf *ring = map->store;
	u64 position = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
	s64 used = ringbuf_read(map, &position, buffer, len);

	__atomic_store_n(&ring->consumer, position, __ATOMIC_RELEASE);
	return used;
}

#endif
