/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Frames that leave by injection: copied into slots, of which native/bpf/inject.bpf.c makes frames
 * of the kernel's in one system call, and accounted for by what became of them.
 */
#ifndef UXDP_PORTS_INJECT_H
#define UXDP_PORTS_INJECT_H

#include "targets.h"
#include "transmit.h"
#include "../clock.h"
#include "injector.h"

/* Below so many frames the TX ring is cheaper than a call (measured on veth, see DESIGN 11). */
#define UXDP_MIN_INJECTED 20u

/* Run the injector on the first n slots; how many it took. */
static u32 inject_slots(struct uxdp_queue *queue, u32 n)
{
	struct injector injector = {
	    .fd = queue->inject_fd,
	    .ifindex = queue->ifindex,
	    .queue_id = queue->queue_id,
	    .slots = queue->slots,
	    .cursor = queue->cursor,
	    .state = queue->state,
	};

	return run_injector(&injector, n);
}

/* The slots that are filled, and which of the batch's frames each is of. */
struct injection {
	struct filled filled;
	u16 index[UXDP_PENDING];
	bool is_copy[UXDP_PENDING]; /* one of several of a frame that was counted already */
};

_Static_assert(UXDP_PENDING <= 1u << 16, "an index is 16 bits wide");

/*
 * Frames that the driver refused, or that the injector could not make, were counted as sent; which
 * they were is not told.
 */
static void account_refused(struct uxdp_queue *queue, const struct batch *batch,
			    const struct injection *injection, u64 refused, enum uxdp_loss loss)
{
	for (u32 i = 0; i < injection->filled.n && unlikely(refused); i++) {
		const struct pending *frame = &batch->frames[injection->index[i]];

		if (frame->target.action == XDP_PASS && loss == UXDP_LOSS_REFUSED)
			continue;
		refused--;
		if (injection->is_copy[i]) {
			queue->state->broadcast_frames--;
			continue;
		}
		queue->state->verdict_frames[frame->verdict]--;
		queue->state->verdict_bytes[frame->verdict] -= frame->rx_len;
		queue->state->tx_by_injection -= frame->verdict == XDP_TX;
		lose(queue, loss);
	}
}

/* Inject what the slots hold. */
static void inject_filled(struct uxdp_queue *queue, const struct batch *batch,
			  struct injection *injection)
{
	struct uxdp_transmitted before = {0}, after = {0};
	u32 done;

	if (!injection->filled.n)
		return;
	if (queue->transmitted)
		before = *(volatile struct uxdp_transmitted *)queue->transmitted;
	done = queue->inject_fd >= 0 ? inject_slots(queue, injection->filled.n) : 0;
	for (u32 i = 0; i < injection->filled.n; i++) {
		const struct pending *frame = &batch->frames[injection->index[i]];

		if (injection->is_copy[i]) {
			queue->state->broadcast_frames += i < done;
		} else if (likely(i < done)) {
			count_verdict(queue, frame);
			queue->state->tx_by_injection += frame->verdict == XDP_TX;
		} else {
			lose(queue, UXDP_LOSS_INJECT_FAILED);
		}
	}
	if (queue->transmitted)
		after = *(volatile struct uxdp_transmitted *)queue->transmitted;
	injection->filled.n = injection->filled.n < done ? injection->filled.n : done;
	if (after.refused != before.refused) {
		if (after.taken == before.taken && queue->tx_method == UXDP_TX_AUTO)
			queue->state->injection_refused = 1;
		account_refused(queue, batch, injection, after.refused - before.refused,
				UXDP_LOSS_REFUSED);
	}
	account_refused(queue, batch, injection, after.failed - before.failed,
			UXDP_LOSS_INJECT_FAILED);
	injection->filled = (struct filled){0};
}

static void fill_slot(struct uxdp_queue *queue, const struct batch *batch,
		      struct injection *injection, u32 index, u32 ifindex, bool is_copy)
{
	const struct pending *frame = &batch->frames[index];
	struct uxdp_slot *slot;

	if (unlikely(!has_room(&injection->filled)))
		inject_filled(queue, batch, injection);
	injection->index[injection->filled.n] = index;
	injection->is_copy[injection->filled.n] = is_copy;
	slot = take_slot(queue->slots, &injection->filled, frame->len);
	slot->action = frame->target.action;
	slot->ifindex = ifindex;
	__builtin_memcpy(slot->data, frame->data, frame->len);
}

static void fill_slots_of_broadcast(struct uxdp_queue *queue, const struct batch *batch,
				    struct injection *injection, u32 index)
{
	const struct pending *frame = &batch->frames[index];
	struct uxdp_devmap_walk walk = {.map = frame->target.broadcast};
	u32 ifindex;

	/* As in the kernel it is no failure if there is nobody to send to. */
	count_verdict(queue, frame);
	while ((ifindex = next_device(&walk)))
		if (ifindex != frame->target.excluded)
			fill_slot(queue, batch, injection, index, ifindex, true);
}

/* Inject the batch's frames in order; those with XDP_TX only if transmit is set. */
static void inject(struct uxdp_queue *queue, struct batch *batch, bool transmit)
{
	struct injection injection;

	injection.filled = (struct filled){0};
	for (u32 i = 0; i < batch->n; i++) {
		const struct pending *frame = &batch->frames[i];

		if (frame->verdict == XDP_TX && !transmit)
			continue;
		if (unlikely(frame->len > UXDP_INJECTED_BYTES))
			lose(queue, UXDP_LOSS_TOO_LONG);
		else if (unlikely(frame->target.broadcast))
			fill_slots_of_broadcast(queue, batch, &injection, i);
		else
			fill_slot(queue, batch, &injection, i, frame->target.ifindex, false);
		release_chunk(queue, frame->chunk);
	}
	inject_filled(queue, batch, &injection);
}

/*
 * Find out with the batch's first frame to be transmitted whether the driver takes injected frames,
 * before many of them depend on it. If it does not, the frame goes by the ring like the others.
 */
static void try_injection(struct uxdp_queue *queue, struct batch *batch)
{
	struct injection injection = {.filled = {0}};
	u64 taken = queue->transmitted ? queue->transmitted->taken : 0;
	u32 first = 0;

	while (batch->frames[first].verdict != XDP_TX)
		first++;
	if (batch->frames[first].len > UXDP_INJECTED_BYTES)
		return;
	fill_slot(queue, batch, &injection, first, 0, false);
	if (!inject_slots(queue, 1) ||
	    (queue->transmitted &&
	     ((volatile struct uxdp_transmitted *)queue->transmitted)->taken == taken)) {
		queue->state->injection_refused = 1;
		return;
	}
	queue->state->injection_taken = 1;
	count_verdict(queue, &batch->frames[first]);
	queue->state->tx_by_injection++;
	release_chunk(queue, batch->frames[first].chunk);
	batch->transmits--;
	batch->n--;
	for (u32 i = first; i < batch->n; i++)
		batch->frames[i] = batch->frames[i + 1];
}

static bool may_inject(const struct uxdp_queue *queue, const struct batch *batch)
{
	return queue->tx_method == UXDP_TX_AUTO && queue->inject_fd >= 0 &&
	       !queue->state->injection_refused && batch->transmits >= UXDP_MIN_INJECTED;
}

#endif
