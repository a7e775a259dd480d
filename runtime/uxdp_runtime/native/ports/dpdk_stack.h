/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The ways between a port and the kernel's stack. If the kernel has an interface of its own on the
 * device (a bifurcated driver), frames are injected as if that had received them, and what the
 * stack transmits is the driver's affair. Else a TAP interface stands for the port.
 */
#ifndef UXDP_PORTS_DPDK_STACK_H
#define UXDP_PORTS_DPDK_STACK_H

#include "dpdk_open.h"
#include "injector.h"

UXDP_INLINE void count_verdict(struct uxdp_dpdk_queue *queue, u32 verdict, u32 rx_bytes)
{
	queue->state->verdict_frames[verdict]++;
	queue->state->verdict_bytes[verdict] += rx_bytes;
}

UXDP_INLINE void lose(struct uxdp_dpdk_queue *queue, enum uxdp_loss loss)
{
	queue->state->lost[loss]++;
}

/* Frames in the injector's slots. */
struct passing {
	struct filled filled;
	u32 rx_bytes[UXDP_PENDING];
};

/* Into the kernel's stack by the TAP interface; false: it could not be. */
static bool pass_bytes(s32 fd, const void *data, u32 len)
{
	return write(fd, data, len) == (ssize_t)len;
}

/* Inject what the slots hold; how many of them became frames, in order but for the failed. */
static u32 inject_slots(struct uxdp_dpdk_queue *queue, u32 n)
{
	const volatile struct uxdp_transmitted *counts = queue->injected;
	struct injector injector = {
	    .fd = queue->inject_fd,
	    .ifindex = queue->ports[queue->port].kernel_ifindex,
	    .queue_id = queue->queue_id,
	    .slots = queue->slots,
	    .cursor = queue->cursor,
	    .state = queue->state,
	};
	u64 failed = counts->failed;
	u32 done = run_injector(&injector, n);

	if (done > n)
		done = n;
	failed = counts->failed - failed;
	return failed < done ? done - failed : 0;
}

UXDP_COLD void inject_passing(struct uxdp_dpdk_queue *queue, struct passing *passing)
{
	u32 done = inject_slots(queue, passing->filled.n);

	for (u32 i = 0; i < passing->filled.n; i++)
		if (i < done)
			count_verdict(queue, XDP_PASS, passing->rx_bytes[i]);
		else
			lose(queue, UXDP_LOSS_INJECT_FAILED);
	passing->filled = (struct filled){0};
}

static void fill_slot(struct uxdp_dpdk_queue *queue, struct filled *filled, const void *data,
		      u32 len)
{
	struct uxdp_slot *slot = take_slot(queue->slots, filled, len);

	slot->action = XDP_PASS;
	memcpy(slot->data, data, len);
}

UXDP_COLD void pass_frame(struct uxdp_dpdk_queue *queue, struct passing *passing,
			  const struct uxdp_frame *frame, u32 rx_bytes)
{
	u32 len = frame->data_end - frame->data;

	if (queue->inject_fd >= 0) {
		if (len > UXDP_INJECTED_BYTES) {
			lose(queue, UXDP_LOSS_TOO_LONG);
			return;
		}
		passing->rx_bytes[passing->filled.n] = rx_bytes;
		fill_slot(queue, &passing->filled, (const void *)frame->data, len);
		if (!has_room(&passing->filled))
			inject_passing(queue, passing);
	} else if (queue->stack_fd < 0) {
		lose(queue, UXDP_LOSS_NO_STACK);
	} else if (pass_bytes(queue->stack_fd, (const void *)frame->data, len)) {
		count_verdict(queue, XDP_PASS, rx_bytes);
	} else {
		lose(queue, UXDP_LOSS_INJECT_FAILED);
	}
}

/* Pass frames that other workers sent here by a cpumap. */
static void pass_mbufs(struct uxdp_dpdk_queue *queue, struct rte_mbuf **mbufs, u32 n)
{
	struct filled filled = {0};
	u32 lost = 0;

	for (u32 i = 0; i < n; i++) {
		struct rte_mbuf *mbuf = mbufs[i];
		const void *data = rte_pktmbuf_mtod(mbuf, void *);

		if (mbuf->nb_segs > 1)
			data = queue->whole ? rte_pktmbuf_read(mbuf, 0, mbuf->pkt_len, queue->whole)
					    : NULL;
		if (data && queue->inject_fd >= 0 && mbuf->pkt_len <= UXDP_INJECTED_BYTES)
			fill_slot(queue, &filled, data, mbuf->pkt_len);
		else if (!data || queue->inject_fd >= 0 || queue->stack_fd < 0 ||
			 !pass_bytes(queue->stack_fd, data, mbuf->pkt_len))
			lost++;
	}
	if (filled.n)
		lost += filled.n - inject_slots(queue, filled.n);
	queue->state->cpumap_lost += lost;
}

#endif
