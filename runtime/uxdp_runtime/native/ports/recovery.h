/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Going on where another data process ended.
 */
#ifndef UXDP_PORTS_RECOVERY_H
#define UXDP_PORTS_RECOVERY_H

#include "accounting.h"
#include "transmit.h"

static void own(struct uxdp_queue *queue, u64 addr, enum uxdp_chunk_owner owner)
{
	if (is_ours(queue, addr, 0))
		set_owner(queue, addr, owner);
}

/*
 * Begin, or go on after another data process: chunks that the kernel has come back by the RX and
 * completion rings, all others are free.
 */
void uxdp_af_xdp_recover(struct uxdp_queue *queue)
{
	struct uxdp_queue_state *state = queue->state;
	struct uxdp_ring *rings[] = {&queue->rx, &queue->tx, &queue->fill, &queue->completion};

	for (u32 i = 0; i < 4; i++) {
		rings[i]->cached_producer = __atomic_load_n(rings[i]->producer, __ATOMIC_ACQUIRE);
		rings[i]->cached_consumer = __atomic_load_n(rings[i]->consumer, __ATOMIC_ACQUIRE);
	}
	/* What was written behind the producers but not published is nobody's but ours. */
	if (state->fill_from == queue->fill.cached_producer)
		for (u32 i = 0; i < state->fill_pending; i++) {
			u32 at = (state->fill_from + i) & queue->fill.mask;

			own(queue, ((u64 *)queue->fill.descriptors)[at], UXDP_CHUNK_USER);
		}
	if (state->tx_from == queue->tx.cached_producer)
		for (u32 i = 0; i < state->tx_pending; i++) {
			u32 at = (state->tx_from + i) & queue->tx.mask;

			own(queue, ((struct xdp_desc *)queue->tx.descriptors)[at].addr,
			    UXDP_CHUNK_USER);
		}
	state->fill_pending = state->tx_pending = 0;
	/* What is in a ring is whose the ring says, whatever the last process had noted already. */
	for (u32 i = queue->fill.cached_consumer; i != queue->fill.cached_producer; i++)
		own(queue, ((u64 *)queue->fill.descriptors)[i & queue->fill.mask], UXDP_CHUNK_FILL);
	for (u32 i = queue->rx.cached_consumer; i != queue->rx.cached_producer; i++)
		own(queue, ((struct xdp_desc *)queue->rx.descriptors)[i & queue->rx.mask].addr,
		    UXDP_CHUNK_FILL);
	for (u32 i = queue->tx.cached_consumer; i != queue->tx.cached_producer; i++)
		own(queue, ((struct xdp_desc *)queue->tx.descriptors)[i & queue->tx.mask].addr,
		    UXDP_CHUNK_TX);
	for (u32 i = queue->completion.cached_consumer; i != queue->completion.cached_producer; i++)
		own(queue, ((u64 *)queue->completion.descriptors)[i & queue->completion.mask],
		    UXDP_CHUNK_TX);
	queue->num_free = 0;
	for (u32 chunk = 0; chunk < state->num_chunks; chunk++)
		if (state->owner[chunk] == UXDP_CHUNK_USER)
			queue->free[queue->num_free++] =
			    queue->first_chunk + chunk * queue->chunk_bytes;
	account_ended(state);
	provide_chunks(queue);
}

#endif
