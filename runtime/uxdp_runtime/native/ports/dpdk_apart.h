/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Frames that do not lie in one mbuf of our own: in several, in memory of others, or without the
 * VLAN tag that they had. They are copied first, and served one by one.
 */
#ifndef UXDP_PORTS_DPDK_APART_H
#define UXDP_PORTS_DPDK_APART_H

#include "dpdk_disposal.h"

/* A copy in one mbuf of our own, as it was on the wire; NULL: there is none. */
static struct rte_mbuf *copy_frame(const struct uxdp_dpdk_port *port, const struct rte_mbuf *mbuf)
{
	struct rte_mbuf *copy = rte_pktmbuf_alloc(port->pool);
	const void *data;

	if (!copy)
		return NULL;
	data = rte_pktmbuf_read(mbuf, 0, mbuf->pkt_len, rte_pktmbuf_mtod(copy, void *));
	if (data != rte_pktmbuf_mtod(copy, void *))
		memcpy(rte_pktmbuf_mtod(copy, void *), data, mbuf->pkt_len);
	copy->data_len = copy->pkt_len = mbuf->pkt_len;
	copy->ol_flags = mbuf->ol_flags & RTE_MBUF_F_RX_RSS_HASH;
	copy->hash = mbuf->hash;
	copy->port = mbuf->port;
	if (mbuf->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) {
		copy->vlan_tci = mbuf->vlan_tci;
		if (rte_vlan_insert(&copy)) {
			rte_pktmbuf_free(copy);
			return NULL;
		}
		copy->ol_flags &= ~(u64)RTE_MBUF_F_TX_VLAN;
	}
	return copy;
}

/* A frame that lies in no mbuf, in as many as it takes; NULL: there are too few. */
static struct rte_mbuf *chain_of(const struct uxdp_dpdk_port *port, const u8 *data, u32 len)
{
	u32 room = port->chunk_bytes - UXDP_HEADROOM;
	struct rte_mbuf *head = NULL;

	for (u32 at = 0; at < len; at += room) {
		struct rte_mbuf *mbuf = rte_pktmbuf_alloc(port->pool);

		if (!mbuf || (head && rte_pktmbuf_chain(head, mbuf))) {
			rte_pktmbuf_free(mbuf);
			rte_pktmbuf_free(head);
			return NULL;
		}
		if (!head)
			head = mbuf;
		mbuf->data_len = len - at < room ? len - at : room;
		memcpy(rte_pktmbuf_mtod(mbuf, void *), data + at, mbuf->data_len);
		head->pkt_len = at + mbuf->data_len;
		rte_pktmbuf_lastseg(head)->data_len = mbuf->data_len;
	}
	return head;
}

/* Transmit or redirect a frame of several mbufs. */
static void send_whole(struct uxdp_dpdk_queue *queue, struct output *out,
		       const struct uxdp_frame *frame, u32 rx_bytes)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	u32 len = frame->data_end - frame->data;
	struct rte_mbuf *mbuf;

	if (!port->can_chain && len > port->chunk_bytes - UXDP_HEADROOM) {
		lose(queue, UXDP_LOSS_TOO_LONG);
		return;
	}
	mbuf = chain_of(port, (const u8 *)frame->data, len);
	if (!mbuf) {
		lose(queue, UXDP_LOSS_NO_BUFFER);
	} else if (frame->verdict == XDP_TX) {
		out->transmitted.mbufs[0] = mbuf;
		out->transmitted.rx_lens[0] = rx_bytes;
		out->transmitted.n = 1;
		send_outgoing(queue, port, queue->queue_id, &out->transmitted, XDP_TX, rx_bytes);
	} else if (redirect_frame(queue, out, mbuf, frame, rx_bytes)) {
		rte_pktmbuf_free(mbuf);
	} else {
		send_redirected(queue, out);
	}
}

/* A frame that fits no mbuf, all of it between data and data_end. */
static void serve_whole(struct uxdp_dpdk_queue *queue, struct output *out, struct rte_mbuf *mbuf)
{
	u32 len = mbuf->pkt_len;
	struct uxdp_frame frame = {
	    .ingress_ifindex = queue->ports[queue->port].ifindex,
	    .rx_queue_index = queue->queue_id,
	    .hard_start = (u64)queue->whole,
	    .data = (u64)queue->whole + UXDP_HEADROOM,
	    .data_meta = (u64)queue->whole + UXDP_HEADROOM,
	};
	const void *data = rte_pktmbuf_read(mbuf, 0, len, (void *)frame.data);

	if (data != (const void *)frame.data)
		memcpy((void *)frame.data, data, len);
	rte_pktmbuf_free(mbuf);
	/* It cannot grow at its end, as on AF_XDP. */
	frame.data_end = frame.limit = frame.data + len;
	queue->worker->rx_metadata = NULL;
	queue->run(&frame, 1);
	if (unlikely(queue->samples))
		sample_frames(queue, &frame, 1);
	switch (frame.verdict) {
	case XDP_TX:
	case XDP_REDIRECT:
		send_whole(queue, out, &frame, len);
		break;
	case XDP_PASS:
		pass_frame(queue, &out->passing, &frame, len);
		if (out->passing.filled.n)
			inject_passing(queue, &out->passing);
		break;
	default:
		count_verdict(queue, frame.verdict == XDP_DROP ? XDP_DROP : XDP_ABORTED, len);
	}
}

#endif
