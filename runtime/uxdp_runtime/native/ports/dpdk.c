/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The loop of the DPDK port: a burst out of the RX queue, the program on all of its frames, and
 * each frame where its verdict says.
 */
#include "dpdk_apart.h"

#include "accounting.h"
#include "dpdk_idle.h"
#include "dpdk_threads.h"

#define ETH_P_8021Q 0x8100
/* enum xdp_rss_hash_type, include/net/xdp.h: drivers of DPDK do not tell which fields it is of. */
#define XDP_RSS_TYPE_NONE 0u
#define UXDP_STACK_IDLE_NS                                                                         \
	50000u		     /* how often the stack's frames are looked for if there are none */
#define UXDP_STACK_BURST 32u /* each takes a system call, and meanwhile the RX queue fills */
#define UXDP_HEARTBEAT_TURNS 4096u
#define UXDP_HEARTBEAT_PAUSES 256u

_Static_assert(sizeof(struct rte_mbuf) == UXDP_MBUF_BYTES &&
		   offsetof(struct rte_mbuf, data_off) == offsetof(struct uxdp_mbuf, data_off) &&
		   offsetof(struct rte_mbuf, refcnt) == offsetof(struct uxdp_mbuf, refcnt) &&
		   offsetof(struct rte_mbuf, nb_segs) == offsetof(struct uxdp_mbuf, nb_segs) &&
		   offsetof(struct rte_mbuf, ol_flags) == offsetof(struct uxdp_mbuf, ol_flags) &&
		   offsetof(struct rte_mbuf, data_len) == offsetof(struct uxdp_mbuf, data_len) &&
		   offsetof(struct rte_mbuf, pool) == offsetof(struct uxdp_mbuf, pool) &&
		   UXDP_MBUF_APART_FLAGS ==
		       (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_RX_VLAN_STRIPPED),
	       "this DPDK's mbufs are not as native/mbufs.h has them");
_Static_assert(RTE_PKTMBUF_HEADROOM + UXDP_MBUF_PRIVATE_BYTES >= UXDP_HEADROOM,
	       "this DPDK is built with less headroom than XDP programs have");

/*
 * Describe a burst's frames, up to the first that does not lie in one mbuf of ours, and all of
 * these together. Of our mbufs the address says where all else is.
 */
UXDP_INLINE u32 describe_frames(const struct uxdp_dpdk_queue *queue, struct rte_mbuf **mbufs, u32 n,
				struct uxdp_frame *frames, struct uxdp_burst *burst, bool with_room)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	u64 room = port->chunk_bytes - queue->tail_bytes;
	u64 rx_bytes = 0, ol_flags = 0;
	u32 i;

	for (i = 0; i < n; i++) {
		const struct uxdp_mbuf *mbuf = (const struct uxdp_mbuf *)mbufs[i];
		struct uxdp_frame *frame = &frames[i];
		u64 data = mbuf_data(mbuf), buffer = (u64)mbuf + UXDP_MBUF_BYTES;
		u32 len = mbuf->data_len;
		u64 end = data + len;

		if (unlikely(!mbuf_is_simple(mbuf, port->pool)))
			break;
		rx_bytes += len;
		ol_flags |= mbuf->ol_flags;
		frame->data = data;
		frame->data_end = end;
		frame->data_meta = data;
		if (with_room) {
			u64 limit = buffer + room;

			frame->hard_start = buffer;
			frame->limit = limit > end ? limit : end; /* it cannot grow, but shrink */
		}
	}
	burst->rx_bytes = rx_bytes;
	burst->ol_flags = ol_flags;
	return i;
}

UXDP_INLINE u32 describe(const struct uxdp_dpdk_queue *queue, struct rte_mbuf **mbufs, u32 n,
			 struct uxdp_frame *frames, struct uxdp_burst *burst)
{
	return queue->asks_for_room ? describe_frames(queue, mbufs, n, frames, burst, true)
				    : describe_frames(queue, mbufs, n, frames, burst, false);
}

/* What hardware knows of the frames, for bpf_xdp_metadata_rx_*. */
UXDP_COLD void describe_metadata(struct uxdp_dpdk_queue *queue, struct rte_mbuf **mbufs, u32 n,
				 const struct uxdp_frame *frames, struct uxdp_rx_metadata *known)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];

	for (u32 i = 0; i < n; i++) {
		u64 flags = mbufs[i]->ol_flags;
		bool timed = port->timestamp_at && flags & port->timestamp_flag;

		known[i] = (struct uxdp_rx_metadata){
		    .timestamp_ns =
			timed ? *RTE_MBUF_DYNFIELD(mbufs[i], port->timestamp_at, u64 *) : 0,
		    .timestamp_error = timed		    ? 0
				       : port->timestamp_at ? -ENODATA
							    : -EOPNOTSUPP,
		    .hash = mbufs[i]->hash.rss,
		    .hash_type = XDP_RSS_TYPE_NONE,
		    .hash_error = flags & RTE_MBUF_F_RX_RSS_HASH ? 0 : -ENODATA,
		    .vlan_error = -ENODATA, /* tags stay in the frame */
		};
	}
	queue->worker->rx_metadata = known;
	queue->worker->burst = frames;
}

struct work {
	struct uxdp_frame frames[UXDP_DPDK_BURST];
	struct uxdp_rx_metadata metadata[UXDP_DPDK_BURST];
	struct output out;
	struct uxdp_burst burst;
};

/* Frames that the program was run on in their mbufs are where they were. */
UXDP_COLD void describe_afterwards(struct uxdp_dpdk_queue *queue, struct work *work,
				   struct rte_mbuf **mbufs, u32 n)
{
	struct uxdp_burst *burst = &work->burst;

	describe(queue, mbufs, n, work->frames, burst);
	for (u32 i = 0; i < n; i++)
		work->frames[i].verdict = burst->verdicts[i];
}

/* Serve frames up to the first that does not lie in one mbuf of ours; how many there were. */
UXDP_INLINE u32 serve_simple(struct uxdp_dpdk_queue *queue, struct work *work,
			     struct rte_mbuf **mbufs, u32 n)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	struct uxdp_burst *burst = &work->burst;

	if (queue->is_written_elsewhere)
		for (u32 i = 0; i < n; i++)
			rte_prefetch0((const void *)mbuf_data((struct uxdp_mbuf *)mbufs[i]));
	if (queue->run_mbufs) {
		n = queue->run_mbufs((struct uxdp_mbuf **)mbufs, n, port->pool, burst);
		if (burst->verdict != XDP_TX && burst->verdict != XDP_DROP)
			describe_afterwards(queue, work, mbufs, n);
	} else {
		n = describe(queue, mbufs, n, work->frames, burst);
		if (unlikely(queue->wants_metadata))
			describe_metadata(queue, mbufs, n, work->frames, work->metadata);
		burst->verdict = queue->run(work->frames, n);
	}
	dispose(queue, &work->out, mbufs, work->frames, n, burst);
	return n;
}

UXDP_COLD void serve_apart(struct uxdp_dpdk_queue *queue, struct work *work, struct rte_mbuf *mbuf)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	u32 len = mbuf->pkt_len;

	if (len <= port->chunk_bytes - UXDP_HEADROOM - sizeof(struct rte_vlan_hdr)) {
		struct rte_mbuf *copy = copy_frame(port, mbuf);

		rte_pktmbuf_free(mbuf);
		if (copy && serve_simple(queue, work, &copy, 1))
			return;
		rte_pktmbuf_free(copy);
		lose(queue, UXDP_LOSS_NO_BUFFER);
	} else if (queue->whole && len <= UXDP_DPDK_WHOLE_BYTES - UXDP_HEADROOM) {
		queue->state->rx_frames++;
		queue->state->rx_bytes += len;
		serve_whole(queue, &work->out, mbuf);
		return;
	} else {
		rte_pktmbuf_free(mbuf);
		lose(queue, UXDP_LOSS_FRAGMENTED);
	}
	queue->state->rx_frames++;
	queue->state->rx_bytes += len;
}

/* Frames in order: those between two that lie apart together. */
UXDP_INLINE void serve_burst(struct uxdp_dpdk_queue *queue, struct work *work,
			     struct rte_mbuf **mbufs, u32 n)
{
	u32 at = serve_simple(queue, work, mbufs, n);

	while (unlikely(at < n)) {
		serve_apart(queue, work, mbufs[at++]);
		if (at < n)
			at += serve_simple(queue, work, mbufs + at, n - at);
	}
}

/* Frames that the kernel's stack transmits leave by this queue, as in the kernel without XDP. */
static u32 serve_stack(struct uxdp_dpdk_queue *queue)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	struct rte_mbuf *mbuf;
	u32 n = 0;

	for (; n < UXDP_STACK_BURST; n++) {
		ssize_t len;

		mbuf = rte_pktmbuf_alloc(port->pool);
		if (!mbuf)
			return n;
		len = read(queue->stack_fd, rte_pktmbuf_mtod(mbuf, void *),
			   rte_pktmbuf_tailroom(mbuf));
		if (len <= 0) {
			rte_pktmbuf_free(mbuf);
			return n;
		}
		mbuf->data_len = mbuf->pkt_len = len;
		if (send_burst(port, queue->queue_id, &mbuf, 1)) {
			queue->state->stack_frames++;
		} else {
			queue->state->stack_lost++;
			rte_pktmbuf_free(mbuf);
		}
	}
	return n;
}

/* Frames that other workers sent here by a cpumap go into the stack. */
static void serve_ring(struct uxdp_dpdk_queue *queue)
{
	struct rte_ring *ring = queue->rings[queue->number];
	struct rte_mbuf *mbufs[UXDP_DPDK_BURST];
	u32 n = rte_ring_dequeue_burst(ring, (void **)mbufs, UXDP_DPDK_BURST, NULL);

	if (n) {
		pass_mbufs(queue, mbufs, n);
		rte_pktmbuf_free_bulk(mbufs, n);
	}
}

UXDP_INLINE bool goes_on(const struct uxdp_dpdk_queue *queue)
{
	return __atomic_load_n(&queue->stop, __ATOMIC_ACQUIRE) == UXDP_GO_ON;
}

/* One turn; how many frames there were. */
UXDP_INLINE u32 serve_turn(struct uxdp_dpdk_queue *queue, struct work *work, struct ticks *ticks)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	struct rte_mbuf *mbufs[UXDP_DPDK_BURST];
	u32 n = rte_eth_rx_burst(port->port_id, queue->queue_id, mbufs, UXDP_DPDK_BURST);

	if (n) {
		/* Where turns follow one another, what was received now has waited for the last. */
		u64 start = ticks->served_ns ? ticks->served_ns : ticks_ns(ticks), now;

		serve_burst(queue, work, mbufs, n);
		now = ticks_ns(ticks);
		queue->state->bursts++;
		account_latency(queue->state, now - start, n);
		account_work(queue->state, start, now);
		ticks->served_ns = now;
	} else {
		ticks->served_ns = 0;
	}
	return n;
}

/* Begin after another data process, whose frames went with its memory. */
void uxdp_dpdk_recover(struct uxdp_dpdk_queue *queue)
{
	account_ended(queue->state);
}

void uxdp_dpdk_serve(struct uxdp_dpdk_queue *queue)
{
	struct work work = {0}; /* no __thread: each access would ask where it is */
	struct ticks ticks = {0};
	u32 heartbeat_turns =
	    queue->power == UXDP_POWER_POLL ? UXDP_HEARTBEAT_TURNS : UXDP_HEARTBEAT_PAUSES;
	u64 stack_due = 0;
	u32 idle = 0, left;
	bool can_sleep;

	if (rte_thread_register() < 0)
		return;
	ticks_begin(&ticks);
	for (u32 i = 0; i < UXDP_DPDK_BURST; i++) {
		work.frames[i].ingress_ifindex = queue->ports[queue->port].ifindex;
		work.frames[i].rx_queue_index = queue->queue_id;
	}
	work.burst.ingress_ifindex = queue->ports[queue->port].ifindex;
	work.burst.rx_queue_index = queue->queue_id;
	can_sleep = prepare_to_sleep(queue);
	while (goes_on(queue)) {
		idle = serve_turn(queue, &work, &ticks) ? 0 : idle + 1;
		if (unlikely(queue->rings))
			serve_ring(queue);
		if (queue->stack_fd >= 0 && rte_rdtsc() > stack_due) {
			u64 pause = serve_stack(queue) ? 0 : UXDP_STACK_IDLE_NS;

			stack_due = rte_rdtsc() + pause * ticks.hz / NSEC_PER_SEC;
		}
		if (likely(idle < UXDP_EAGER_TURNS))
			continue;
		if (idle % heartbeat_turns == 0)
			tell_alive(queue, &ticks);
		if (unlikely(timer_is_due(queue, &ticks)))
			queue->run(work.frames, 0);
		if (queue->power == UXDP_POWER_POLL || idle < UXDP_PAUSE_TURNS) {
			rte_pause();
		} else if (!can_sleep ||
			   !arm_interrupt(&queue->ports[queue->port], queue->queue_id)) {
			/* A device that was found to have interrupts, and has lost them, is looked
			 * at. */
			pause_a_little(queue, idle);
		} else {
			/* What came before the interrupt was armed causes none. */
			idle = serve_turn(queue, &work, &ticks) ? 0 : idle;
			if (idle)
				await_interrupt(queue, &ticks);
			disarm_interrupt(queue);
			stack_due = 0;
		}
	}
	/* What was received is finished; who sends on and on is not waited for. */
	left = queue->ports[queue->port].num_descriptors;
	for (u32 n = 1; n && left; left -= n < left ? n : left)
		n = serve_turn(queue, &work, &ticks);
	if (queue->rings)
		serve_ring(queue);
	rte_thread_unregister();
}
