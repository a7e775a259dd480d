/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Frames of several buffers, for programs with frags: put together in memory of the queue's, run
 * alone, and sent in pieces again.
 */
#ifndef UXDP_PORTS_PIECES_H
#define UXDP_PORTS_PIECES_H

#include "disposal.h"

/*
 * Transmit a frame that lies elsewhere, by as many descriptors as it takes.
 * Reference: Documentation/networking/af_xdp.rst, "Multi-Buffer Support" (since v6.6)
 */
static void transmit_in_pieces(struct uxdp_queue *queue, const struct pending *frame)
{
	struct uxdp_ring *ring = &queue->tx;
	struct xdp_desc *descriptors = ring->descriptors;
	u32 n = (frame->len + queue->chunk_bytes - 1) / queue->chunk_bytes;

	reclaim(queue);
	ring->cached_consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	if (ring_room(ring) < n || queue->num_free < n) {
		lose(queue, UXDP_LOSS_TX_RING_FULL);
		return;
	}
	for (u32 i = 0, at = 0; i < n; i++) {
		u64 addr = queue->free[queue->num_free - 1 - i];
		u32 rest = frame->len - at;
		u32 len = rest < queue->chunk_bytes ? rest : queue->chunk_bytes;

		__builtin_memcpy(queue->umem + addr, frame->data + at, len);
		descriptors[(ring->cached_producer + i) & ring->mask] = (struct xdp_desc){
		    .addr = addr, .len = len, .options = len < rest ? XDP_PKT_CONTD : 0};
		at += len;
	}
	announce(&queue->state->tx_from, &queue->state->tx_pending, ring->cached_producer, n);
	for (u32 i = 0; i < n; i++)
		set_owner(queue, queue->free[--queue->num_free], UXDP_CHUNK_TX);
	ring->cached_producer += n;
	publish(ring, &queue->state->tx_pending);
	count_verdict(queue, frame);
	queue->state->tx_by_ring++;
	kick(queue);
}

/* Whether the frame at the RX ring's consumer has several buffers. */
UXDP_INLINE bool begins_in_pieces(struct uxdp_queue *queue)
{
	const struct xdp_desc *descriptors = queue->rx.descriptors;

	return ring_available(&queue->rx) &&
	       descriptors[queue->rx.cached_consumer & queue->rx.mask].options & XDP_PKT_CONTD;
}

/* How many descriptors the frame at the RX ring's consumer has; 0: the ring is empty. */
UXDP_INLINE u32 count_pieces(struct uxdp_queue *queue)
{
	const struct xdp_desc *descriptors = queue->rx.descriptors;
	u32 available = ring_available(&queue->rx), n = 0;

	while (n < available)
		if (!(descriptors[(queue->rx.cached_consumer + n++) & queue->rx.mask].options &
		      XDP_PKT_CONTD))
			break;
	return n;
}

/* What is known of a frame, in front of its first byte; it counts once, for buffers are used again.
 */
static struct uxdp_rx_metadata metadata_before(const u8 *buffer, u8 *data)
{
	static const u16 mark[3] = {UXDP_METADATA_MARK};
	struct uxdp_rx_metadata known = {0};

	if (data - buffer >= (s64)sizeof(known))
		__builtin_memcpy(&known, data - sizeof(known), sizeof(known));
	if (__builtin_memcmp(known.mark, mark, sizeof(mark)))
		return (struct uxdp_rx_metadata){
		    .timestamp_error = -EOPNOTSUPP,
		    .hash_error = -EOPNOTSUPP,
		    .vlan_error = -EOPNOTSUPP,
		};
	__builtin_memset(data - sizeof(mark), 0, sizeof(mark));
	return known;
}

/*
 * Serve the frame of several buffers at the RX ring's consumer: it is put together elsewhere, so
 * that the program finds all of it between data and data_end. The kernel publishes all of a
 * frame's descriptors at once.
 */
static void serve_in_pieces(struct uxdp_queue *queue, struct batch *batch, u32 pieces)
{
	const struct xdp_desc *descriptors = queue->rx.descriptors;
	struct uxdp_frame frame = {
	    .ingress_ifindex = queue->ifindex,
	    .rx_queue_index = queue->queue_id,
	};
	struct uxdp_rx_metadata known = {0};
	enum uxdp_loss loss = UXDP_LOSSES;
	u32 len = 0;

	queue->state->rx_frames++;
	for (u32 i = 0; i < pieces; i++) {
		struct xdp_desc desc = descriptors[queue->rx.cached_consumer++ & queue->rx.mask];

		queue->state->rx_bytes += desc.len;
		if (unlikely(!is_ours(queue, desc.addr, desc.len))) {
			loss = UXDP_LOSS_BAD_DESCRIPTOR;
			continue;
		}
		if (queue->asking && !len)
			known = metadata_before(queue->umem, queue->umem + desc.addr);
		if (!queue->whole || len + desc.len > UXDP_WHOLE_BYTES - UXDP_HEADROOM)
			loss = UXDP_LOSS_FRAGMENTED;
		else
			__builtin_memcpy(queue->whole + UXDP_HEADROOM + len,
					 queue->umem + desc.addr, desc.len);
		len += desc.len;
		set_owner(queue, desc.addr, UXDP_CHUNK_USER);
		release_chunk(queue, desc.addr);
	}
	__atomic_store_n(queue->rx.consumer, queue->rx.cached_consumer, __ATOMIC_RELEASE);
	if (loss != UXDP_LOSSES) {
		lose(queue, loss);
		return;
	}
	frame.hard_start = (u64)queue->whole;
	frame.data = frame.data_meta = frame.hard_start + UXDP_HEADROOM;
	frame.data_end = frame.data + len;
	/* It cannot grow at its end: nor do fragments of drivers that tell the kernel no size of
	 * theirs, such as veth's (bpf_xdp_frags_increase_tail). */
	frame.limit = frame.data_end;
	if (queue->asking)
		queue->asking->rx_metadata = &known;
	queue->run(&frame, 1);
	flush(queue, batch); /* what came before it leaves before it, and the buffer is but one */
	if (dispose(queue, batch, &frame, NO_CHUNK, len))
		return;
	if (batch->transmits)
		transmit_in_pieces(queue, &batch->frames[0]);
	else
		inject(queue, batch, false);
	batch->n = batch->transmits = 0;
}

#endif
