/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The four rings of a queue, and whose its chunks are: what the kernel has given back by the RX and
 * completion rings is free, and goes into the fill ring.
 */
#ifndef UXDP_PORTS_RINGS_H
#define UXDP_PORTS_RINGS_H

#include "af_xdp.h"

#define NO_CHUNK UINT64_MAX
#define UXDP_FILL_CALM 8192u /* bursts: some tenths of a second of a busy queue */

UXDP_INLINE u32 chunk_of(const struct uxdp_queue *queue, u64 addr)
{
	return (addr - queue->first_chunk) / queue->chunk_bytes;
}

UXDP_INLINE bool is_ours(const struct uxdp_queue *queue, u64 addr, u64 len)
{
	u64 chunk = (addr - queue->first_chunk) / queue->chunk_bytes;

	return addr >= queue->first_chunk && chunk < queue->state->num_chunks &&
	       len <= queue->chunk_bytes &&
	       (addr - queue->first_chunk) % queue->chunk_bytes <= queue->chunk_bytes - len;
}

UXDP_INLINE void set_owner(struct uxdp_queue *queue, u64 addr, enum uxdp_chunk_owner owner)
{
	__atomic_store_n(&queue->state->owner[chunk_of(queue, addr)], owner, __ATOMIC_RELAXED);
}

/* Give a chunk back, whatever address inside of it is known. */
UXDP_INLINE void release_chunk(struct uxdp_queue *queue, u64 addr)
{
	if (unlikely(addr == NO_CHUNK))
		return;
	queue->free[queue->num_free++] =
	    queue->first_chunk + (u64)chunk_of(queue, addr) * queue->chunk_bytes;
}

UXDP_INLINE u32 ring_available(struct uxdp_ring *ring)
{
	if (ring->cached_producer == ring->cached_consumer)
		ring->cached_producer = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	return ring->cached_producer - ring->cached_consumer;
}

UXDP_INLINE u32 ring_room(struct uxdp_ring *ring)
{
	u32 size = ring->mask + 1;

	if (ring->cached_producer - ring->cached_consumer == size)
		ring->cached_consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	return size - (ring->cached_producer - ring->cached_consumer);
}

/* Note which entries are written, so that it can be told whose they are whenever this process ends.
 */
UXDP_INLINE void announce(u32 *from, u32 *pending, u32 producer, u32 n)
{
	*from = producer;
	__atomic_store_n(pending, n, __ATOMIC_RELEASE);
}

UXDP_INLINE void publish(struct uxdp_ring *ring, u32 *pending)
{
	__atomic_store_n(ring->producer, ring->cached_producer, __ATOMIC_RELEASE);
	__atomic_store_n(pending, 0, __ATOMIC_RELEASE);
}

static void reclaim(struct uxdp_queue *queue)
{
	struct uxdp_ring *ring = &queue->completion;
	const u64 *addrs = ring->descriptors;
	u32 n;

	ring->cached_producer = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	n = ring->cached_producer - ring->cached_consumer;
	for (u32 i = 0; i < n; i++) {
		u64 addr = addrs[ring->cached_consumer++ & ring->mask];

		if (unlikely(!is_ours(queue, addr, 0) ||
			     queue->state->owner[chunk_of(queue, addr)] != UXDP_CHUNK_TX))
			continue;
		set_owner(queue, addr, UXDP_CHUNK_USER);
		release_chunk(queue, addr);
	}
	if (n)
		__atomic_store_n(ring->consumer, ring->cached_consumer, __ATOMIC_RELEASE);
}

/*
 * How many chunks the kernel is to have to receive into. It takes them in turn, and those that it
 * used long ago are in nobody's cache or TLB any more: so half as many as the RX ring has entries,
 * but as many, which is all that it can use, once it took half of those in one turn of the loop.
 */
UXDP_INLINE u32 fill_level(struct uxdp_queue *queue, u32 left)
{
	u32 most = queue->rx.mask + 1;

	if (left < most / 4)
		queue->fill_calm = 0;
	else if (left < most && queue->fill_calm < UXDP_FILL_CALM)
		queue->fill_calm++;
	return queue->fill_calm < UXDP_FILL_CALM ? most : most / 2;
}

static void provide_chunks(struct uxdp_queue *queue)
{
	struct uxdp_ring *ring = &queue->fill;
	u64 *addrs = ring->descriptors;
	u32 room, left, wanted, n;

	ring->cached_consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	room = ring_room(ring);
	left = ring->cached_producer - ring->cached_consumer;
	wanted = fill_level(queue, left);
	n = left < wanted ? wanted - left : 0;
	n = n < room ? n : room;
	n = n < queue->num_free ? n : queue->num_free;
	if (!n)
		return;
	for (u32 i = 0; i < n; i++)
		addrs[(ring->cached_producer + i) & ring->mask] =
		    queue->free[queue->num_free - 1 - i];
	announce(&queue->state->fill_from, &queue->state->fill_pending, ring->cached_producer, n);
	for (u32 i = 0; i < n; i++)
		set_owner(queue, queue->free[--queue->num_free], UXDP_CHUNK_FILL);
	ring->cached_producer += n;
	publish(ring, &queue->state->fill_pending);
}

#endif
