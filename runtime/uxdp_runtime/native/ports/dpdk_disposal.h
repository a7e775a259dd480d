/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What becomes of a frame once the program has given its verdict. Frames of a burst that leave by
 * one queue are sent together; those that a driver does not take are freed and counted, as in the
 * kernel.
 */
#ifndef UXDP_PORTS_DPDK_DISPOSAL_H
#define UXDP_PORTS_DPDK_DISPOSAL_H

#include "dpdk_stack.h"

#include "samples.h"

/* Frames for one TX queue. */
struct outgoing {
	u32 n;
	u32 rx_lens[UXDP_DPDK_BURST];
	struct rte_mbuf *mbufs[UXDP_DPDK_BURST];
};

struct output {
	u32 num_freed;
	struct rte_mbuf *freed[UXDP_DPDK_BURST]; /* of our pool, one buffer each */
	struct passing passing;
	struct outgoing transmitted;
	struct outgoing redirected[UXDP_DPDK_PORTS];
	u32 ports_used; /* a bit for each of redirected that is not empty */
};

/*
 * Make the mbuf what the program made of its frame. What hardware said of the frame that was
 * received is no longer true: without flags no driver touches checksums or tags.
 */
UXDP_INLINE void finish_frame(struct rte_mbuf *mbuf, const struct uxdp_frame *frame)
{
	u64 data = frame->data, len = frame->data_end - data, buffer = (u64)mbuf->buf_addr;

	mbuf->ol_flags = 0;
	if (likely(data == buffer + mbuf->data_off && len == mbuf->data_len))
		return;
	if (unlikely(data < buffer)) {
		memmove((void *)buffer, (const void *)data, len);
		data = buffer;
	}
	mbuf->data_off = data - buffer;
	mbuf->data_len = len;
	mbuf->pkt_len = len;
}

/* Send frames by a queue; how many were taken. */
static u32 send_burst(const struct uxdp_dpdk_port *port, u32 queue_id, struct rte_mbuf **mbufs,
		      u32 n)
{
	rte_spinlock_t *lock = (rte_spinlock_t *)port->tx_locks + queue_id;
	u32 sent;

	if (likely(port->is_alone))
		return rte_eth_tx_burst(port->port_id, queue_id, mbufs, n);
	rte_spinlock_lock(lock);
	sent = rte_eth_tx_burst(port->port_id, queue_id, mbufs, n);
	rte_spinlock_unlock(lock);
	return sent;
}

/*
 * Send frames by a queue, account for them, and free those that were not taken. How long they were
 * when they were received is in rx_lens; NULL: they still are.
 */
UXDP_INLINE void transmit(struct uxdp_dpdk_queue *queue, const struct uxdp_dpdk_port *port,
			  u32 queue_id, struct rte_mbuf **mbufs, const u32 *rx_lens, u32 n,
			  u32 verdict, u64 rx_bytes)
{
	u32 sent = send_burst(port, queue_id, mbufs, n);

	queue->state->verdict_frames[verdict] += sent;
	for (u32 i = sent; unlikely(i < n); i++) {
		rx_bytes -= rx_lens ? rx_lens[i] : mbufs[i]->data_len;
		lose(queue, UXDP_LOSS_TX_RING_FULL);
		rte_pktmbuf_free(mbufs[i]);
	}
	queue->state->verdict_bytes[verdict] += rx_bytes;
	if (verdict == XDP_TX)
		queue->state->tx_by_ring += sent;
}

UXDP_INLINE void send_outgoing(struct uxdp_dpdk_queue *queue, const struct uxdp_dpdk_port *port,
			       u32 queue_id, struct outgoing *outgoing, u32 verdict, u64 rx_bytes)
{
	transmit(queue, port, queue_id, outgoing->mbufs, outgoing->rx_lens, outgoing->n, verdict,
		 rx_bytes);
	outgoing->n = 0;
}

static void send_redirected(struct uxdp_dpdk_queue *queue, struct output *out)
{
	while (out->ports_used) {
		u32 i = __builtin_ctz(out->ports_used);
		const struct uxdp_dpdk_port *port = &queue->ports[i];
		struct outgoing *outgoing = &out->redirected[i];
		u64 rx_bytes = 0;

		for (u32 j = 0; j < outgoing->n; j++)
			rx_bytes += outgoing->rx_lens[j];
		send_outgoing(queue, port, queue->number % port->num_queues, outgoing, XDP_REDIRECT,
			      rx_bytes);
		out->ports_used &= out->ports_used - 1;
	}
}

static s32 port_of(const struct uxdp_dpdk_queue *queue, u32 ifindex)
{
	for (u32 i = 0; i < queue->num_ports; i++)
		if (queue->ports[i].ifindex == ifindex)
			return i;
	return -1;
}

/* A copy for each of a devmap's interfaces; whether there was any. */
static bool broadcast(struct uxdp_dpdk_queue *queue, const struct rte_mbuf *mbuf,
		      const struct uxdp_target *target)
{
	struct uxdp_devmap_walk walk = {.map = target->broadcast};
	struct rte_mbuf *copy;
	bool found = false;
	u32 ifindex;

	while ((ifindex = queue->next_device(&walk))) {
		s32 i = ifindex == target->excluded ? -1 : port_of(queue, ifindex);

		if (i < 0)
			continue;
		found = true;
		copy = rte_pktmbuf_copy(mbuf, queue->ports[queue->port].pool, 0, UINT32_MAX);
		if (!copy)
			continue;
		if (send_burst(&queue->ports[i], queue->number % queue->ports[i].num_queues, &copy,
			       1))
			queue->state->broadcast_frames++;
		else
			rte_pktmbuf_free(copy);
	}
	return found;
}

/* Redirect a frame in an mbuf that is its own; whether the mbuf is still ours. */
UXDP_COLD bool redirect_frame(struct uxdp_dpdk_queue *queue, struct output *out,
			      struct rte_mbuf *mbuf, const struct uxdp_frame *frame, u32 rx_bytes)
{
	struct uxdp_target target = {.action = XDP_REDIRECT};
	struct outgoing *outgoing;
	s32 i;

	if (!queue->find_target(queue->maps, queue->num_maps, frame, &target)) {
		lose(queue, UXDP_LOSS_NO_TARGET);
		return true;
	}
	if (target.broadcast) {
		if (broadcast(queue, mbuf, &target))
			count_verdict(queue, XDP_REDIRECT, rx_bytes);
		else
			lose(queue, UXDP_LOSS_NO_TARGET);
		return true;
	}
	if (target.action == XDP_PASS) { /* a cpumap */
		if (!queue->rings || target.cpu >= queue->num_workers) {
			lose(queue, UXDP_LOSS_NO_TARGET);
			return true;
		}
		if (rte_ring_enqueue(queue->rings[target.cpu], mbuf)) {
			lose(queue, UXDP_LOSS_CPU_RING_FULL);
			return true;
		}
		count_verdict(queue, XDP_REDIRECT, rx_bytes);
		return false;
	}
	i = port_of(queue, target.ifindex);
	if (i < 0) {
		lose(queue, UXDP_LOSS_NO_TARGET);
		return true;
	}
	outgoing = &out->redirected[i];
	outgoing->rx_lens[outgoing->n] = rx_bytes;
	outgoing->mbufs[outgoing->n++] = mbuf;
	out->ports_used |= 1u << i;
	return false;
}

/* What is neither dropped nor transmitted; whether the mbuf is still ours. */
UXDP_COLD bool dispose_other(struct uxdp_dpdk_queue *queue, struct output *out,
			     struct rte_mbuf *mbuf, const struct uxdp_frame *frame, u32 rx_bytes)
{
	switch (frame->verdict) {
	case XDP_PASS:
		pass_frame(queue, &out->passing, frame, rx_bytes);
		return true;
	case XDP_REDIRECT:
		finish_frame(mbuf, frame);
		return redirect_frame(queue, out, mbuf, frame, rx_bytes);
	default:
		count_verdict(queue, XDP_ABORTED, rx_bytes);
		return true;
	}
}

UXDP_COLD void sample_frames(struct uxdp_dpdk_queue *queue, const struct uxdp_frame *frames, u32 n)
{
	for (u32 i = 0; i < n; i++)
		if (!--queue->sample_in) {
			queue->sample_in = queue->samples->every;
			take_sample(queue->samples, &frames[i]);
		}
}

/* Their refcnt is 1 and they have no next: what rte_pktmbuf_free would look at. */
UXDP_INLINE void free_simple(const struct uxdp_dpdk_port *port, struct rte_mbuf **mbufs, u32 n)
{
	rte_mempool_put_bulk(port->pool, (void **)mbufs, n);
}

UXDP_INLINE void transmit_all(struct uxdp_dpdk_queue *queue, struct outgoing *outgoing,
			      struct rte_mbuf **mbufs, const struct uxdp_frame *frames, u32 n,
			      const struct uxdp_burst *burst)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	const u32 *rx_lens = NULL;

	if (queue->asks_for_room) {
		for (u32 i = 0; i < n; i++) {
			outgoing->rx_lens[i] = mbufs[i]->data_len;
			finish_frame(mbufs[i], &frames[i]);
		}
		rx_lens = outgoing->rx_lens;
	} else if (burst->ol_flags) {
		for (u32 i = 0; i < n; i++)
			mbufs[i]->ol_flags = 0;
	}
	transmit(queue, port, queue->queue_id, mbufs, rx_lens, n, XDP_TX, burst->rx_bytes);
}

/* Each frame where its own verdict says. */
UXDP_INLINE void dispose_each(struct uxdp_dpdk_queue *queue, struct output *out,
			      struct rte_mbuf **mbufs, const struct uxdp_frame *frames, u32 n)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	struct outgoing *transmitted = &out->transmitted;
	u64 dropped_bytes = 0, transmitted_bytes = 0;
	u32 dropped = 0, num_freed = 0, num_transmitted = 0;

	for (u32 i = 0; i < n; i++) {
		struct rte_mbuf *mbuf = mbufs[i];
		u32 len = mbuf->data_len;

		if (frames[i].verdict == XDP_TX) {
			finish_frame(mbuf, &frames[i]);
			transmitted_bytes += len;
			transmitted->rx_lens[num_transmitted] = len;
			transmitted->mbufs[num_transmitted++] = mbuf;
			continue;
		}
		if (frames[i].verdict == XDP_DROP) {
			dropped++;
			dropped_bytes += len;
		} else if (!dispose_other(queue, out, mbuf, &frames[i], len)) {
			continue;
		}
		out->freed[num_freed++] = mbuf;
	}
	queue->state->verdict_frames[XDP_DROP] += dropped;
	queue->state->verdict_bytes[XDP_DROP] += dropped_bytes;
	if (num_transmitted) {
		transmitted->n = num_transmitted;
		send_outgoing(queue, port, queue->queue_id, transmitted, XDP_TX, transmitted_bytes);
	}
	if (unlikely(out->ports_used))
		send_redirected(queue, out);
	if (unlikely(out->passing.filled.n))
		inject_passing(queue, &out->passing);
	if (num_freed)
		free_simple(port, out->freed, num_freed);
}

/* Dispose of frames that are one mbuf of our pool each, and nobody else's. */
UXDP_INLINE void dispose(struct uxdp_dpdk_queue *queue, struct output *out, struct rte_mbuf **mbufs,
			 const struct uxdp_frame *frames, u32 n, const struct uxdp_burst *burst)
{
	if (unlikely(queue->samples))
		sample_frames(queue, frames, n);
	queue->state->rx_frames += n;
	queue->state->rx_bytes += burst->rx_bytes;
	if (burst->verdict == XDP_TX) {
		transmit_all(queue, &out->transmitted, mbufs, frames, n, burst);
	} else if (burst->verdict == XDP_DROP) {
		queue->state->verdict_frames[XDP_DROP] += n;
		queue->state->verdict_bytes[XDP_DROP] += burst->rx_bytes;
		free_simple(&queue->ports[queue->port], mbufs, n);
	} else {
		dispose_each(queue, out, mbufs, frames, n);
	}
}

#endif
