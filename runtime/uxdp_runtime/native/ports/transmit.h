/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Frames that wait for their disposal, and those that leave by the TX ring.
 */
#ifndef UXDP_PORTS_TRANSMIT_H
#define UXDP_PORTS_TRANSMIT_H

#include "rings.h"
#include "system.h"

#define UXDP_MAX_KICKS                                                                             \
	64u /* sendto() transmits 32 descriptors, then it wants to be called again                 \
	     */

/* A frame that waits for its disposal, in its chunk. */
struct pending {
	u8 *data;
	u64 chunk; /* an address within, to be released; NO_CHUNK: it lies elsewhere */
	u32 len;
	u32 rx_len;
	u32 verdict;
	struct uxdp_target target;
};

struct batch {
	struct pending frames[UXDP_PENDING];
	u32 n;
	u32 transmits;
	u32 last_n;    /* how many frames left at once the last time */
	u64 oldest_ns; /* CLOCK_MONOTONIC: when the burst of the first frame began, */
	u64 newest_ns; /* and of the last that was received, here or not */
};

UXDP_INLINE void count_verdict(struct uxdp_queue *queue, const struct pending *frame)
{
	queue->state->verdict_frames[frame->verdict]++;
	queue->state->verdict_bytes[frame->verdict] += frame->rx_len;
}

UXDP_INLINE void lose(struct uxdp_queue *queue, enum uxdp_loss loss)
{
	queue->state->lost[loss]++;
}

/* Let the kernel transmit what is in the TX ring. */
static void kick(struct uxdp_queue *queue)
{
	struct uxdp_ring *ring = &queue->tx;

	for (u32 i = 0; i < UXDP_MAX_KICKS; i++) {
		u32 before = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);

		if (before == ring->cached_producer)
			break;
		if (!(__atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP))
			break;
		if (sendto(queue->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
			continue;
		switch (*__errno_location()) {
		case EAGAIN:
		case EINTR:
			continue;
		case EBUSY:
		case ENOBUFS:
			/* The driver's queue is full. Completions make room; the next burst tries
			 * again. */
			reclaim(queue);
			if (__atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE) == before)
				return;
			continue;
		default:
			return;
		}
	}
}

/* Transmit the batch's frames with XDP_TX by the ring; those behind a full ring are lost. */
static void transmit_by_ring(struct uxdp_queue *queue, struct batch *batch)
{
	struct uxdp_ring *ring = &queue->tx;
	struct xdp_desc *descriptors = ring->descriptors;
	u32 room, sent = 0;

	ring->cached_consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	room = ring_room(ring);
	for (u32 i = 0; i < batch->n; i++) {
		const struct pending *frame = &batch->frames[i];

		if (frame->verdict != XDP_TX)
			continue;
		if (unlikely(sent == room)) {
			lose(queue, UXDP_LOSS_TX_RING_FULL);
			release_chunk(queue, frame->chunk);
			continue;
		}
		descriptors[(ring->cached_producer + sent++) & ring->mask] =
		    (struct xdp_desc){.addr = frame->data - queue->umem, .len = frame->len};
		count_verdict(queue, frame);
	}
	announce(&queue->state->tx_from, &queue->state->tx_pending, ring->cached_producer, sent);
	for (u32 i = 0; i < sent; i++)
		set_owner(queue, descriptors[ring->cached_producer++ & ring->mask].addr,
			  UXDP_CHUNK_TX);
	publish(ring, &queue->state->tx_pending);
	queue->state->tx_by_ring += sent;
	kick(queue);
}

#endif
