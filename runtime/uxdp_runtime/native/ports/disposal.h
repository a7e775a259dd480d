/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What becomes of a frame once the program has given its verdict.
 */
#ifndef UXDP_PORTS_DISPOSAL_H
#define UXDP_PORTS_DISPOSAL_H

#include "inject.h"
#include "samples.h"

static void flush(struct uxdp_queue *queue, struct batch *batch)
{
	bool transmit;

	if (unlikely(!queue->state->injection_taken) && may_inject(queue, batch))
		try_injection(queue, batch);
	transmit =
	    batch->transmits && (queue->tx_method == UXDP_TX_LIVE ||
				 (queue->state->injection_taken && may_inject(queue, batch)));
	if (batch->transmits && !transmit)
		transmit_by_ring(queue, batch);
	if (transmit || batch->n > batch->transmits)
		inject(queue, batch, transmit);
	batch->last_n = batch->n;
	batch->n = batch->transmits = 0;
}

/* Queue a frame for disposal, or be done with it: whether its chunk is free. */
UXDP_INLINE bool dispose(struct uxdp_queue *queue, struct batch *batch,
			 const struct uxdp_frame *frame, u64 chunk, u32 rx_len)
{
	struct pending *pending = &batch->frames[batch->n];

	if (unlikely(queue->samples) && !--queue->sample_in) {
		queue->sample_in = queue->samples->every;
		take_sample(queue->samples, frame);
	}
	*pending = (struct pending){
	    .data = (u8 *)frame->data,
	    .chunk = chunk,
	    .len = frame->data_end - frame->data,
	    .rx_len = rx_len,
	    .verdict = frame->verdict <= XDP_REDIRECT ? frame->verdict : XDP_ABORTED,
	};
	pending->target.action = pending->verdict;
	switch (pending->verdict) {
	case XDP_REDIRECT:
		if (!find_target(queue->maps, queue->num_maps, frame, &pending->target)) {
			lose(queue, UXDP_LOSS_NO_TARGET);
			return true;
		}
		break;
	case XDP_TX:
		batch->transmits++;
		break;
	case XDP_PASS:
		break;
	default:
		count_verdict(queue, pending);
		return true;
	}
	batch->n++;
	return false;
}

#endif
