/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The loop of the DPDK port: a burst out of the RX queue, the program on all of its frames, and
 * each frame where its verdict says.
 */
#include "dpdk_apart.h"

#include "accounting.h"
#include "dpdk_threads.h"

#define ETH_P_8021Q 0x8100
/* enum xdp_rss_hash_type, include/net/xdp.h: drivers of DPDK do not tell which fields it is of. */
#define XDP_RSS_TYPE_NONE 0u
#define UXDP_PAUSE_TURNS 2000u /* without frames, before it sleeps: some 40 us */
#define UXDP_PAUSE_NS 50000
#define UXDP_STACK_IDLE_NS                                                                         \
	50000u /* how often the stack's frames are looked for if there are none */
#define UXDP_HEARTBEAT_TURNS 4096u

/*
 * The CPU's counter as CLOCK_MONOTONIC, whose own reading would take as long as two frames do. Set
 * right 16 times a second.
 */
struct ticks {
	u64 hz;
	u64 base;
	u64 base_ns;
	u64 ns_per_tick; /* times 2^32 */
};

static void ticks_begin(struct ticks *ticks)
{
	ticks->base_ns = clock_ns(CLOCK_MONOTONIC);
	ticks->base = rte_rdtsc();
	ticks->hz = rte_get_tsc_hz();
	ticks->ns_per_tick = ((unsigned __int128)NSEC_PER_SEC << 32) / ticks->hz;
}

UXDP_INLINE u64 ticks_ns(struct ticks *ticks)
{
	u64 since = rte_rdtsc() - ticks->base;

	if (unlikely(since > ticks->hz / 16)) {
		ticks_begin(ticks);
		return ticks->base_ns;
	}
	return ticks->base_ns + (since * ticks->ns_per_tick >> 32);
}

/* rearm_data of an mbuf that is a frame's only one and has one owner; but for data_off and port. */
#define REARM_MASK 0x0000ffffffff0000ull
#define REARM_SIMPLE 0x0000000100010000ull
#define APART_FLAGS (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_RX_VLAN_STRIPPED)

_Static_assert(RTE_PKTMBUF_HEADROOM + UXDP_DPDK_PRIVATE_BYTES >= UXDP_HEADROOM,
	       "this DPDK is built with less headroom than XDP programs have");

/* Describe a burst's frames, up to the first that does not lie in one mbuf of ours. */
UXDP_INLINE u32 describe(const struct uxdp_dpdk_queue *queue, struct rte_mbuf **mbufs, u32 n,
			 struct uxdp_frame *frames)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	const struct rte_mempool *pool = port->pool;
	u64 room = port->chunk_bytes - queue->tail_bytes;

	for (u32 i = 0; i < n; i++) {
		struct rte_mbuf *mbuf = mbufs[i];
		struct uxdp_frame *frame = &frames[i];
		u64 rearm = *(const u64 *)&mbuf->rearm_data;
		u64 data = (u64)mbuf->buf_addr + (u16)rearm, end = data + mbuf->data_len;
		u64 limit = (u64)(mbuf + 1) + room;

		if (unlikely((rearm & REARM_MASK) != REARM_SIMPLE || mbuf->pool != pool ||
			     mbuf->ol_flags & APART_FLAGS))
			return i;
		rte_prefetch0((const void *)data);
		frame->data = data;
		frame->data_end = end;
		frame->data_meta = data;
		frame->hard_start = (u64)(mbuf + 1);
		frame->limit = limit > end ? limit : end; /* it cannot grow, but shrink */
	}
	return n;
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
};

UXDP_INLINE void serve_simple(struct uxdp_dpdk_queue *queue, struct work *work,
			      struct rte_mbuf **mbufs, u32 n)
{
	if (unlikely(queue->wants_metadata))
		describe_metadata(queue, mbufs, n, work->frames, work->metadata);
	queue->run(work->frames, n);
	dispose(queue, &work->out, mbufs, work->frames, n);
}

UXDP_COLD void serve_apart(struct uxdp_dpdk_queue *queue, struct work *work, struct rte_mbuf *mbuf)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	u32 len = mbuf->pkt_len;

	if (len <= port->chunk_bytes - UXDP_HEADROOM - sizeof(struct rte_vlan_hdr)) {
		struct rte_mbuf *copy = copy_frame(port, mbuf);

		rte_pktmbuf_free(mbuf);
		if (copy && describe(queue, &copy, 1, work->frames)) {
			serve_simple(queue, work, &copy, 1);
			return;
		}
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
	u32 at = describe(queue, mbufs, n, work->frames);

	if (likely(at == n)) {
		serve_simple(queue, work, mbufs, n);
		return;
	}
	for (u32 first = 0;;) {
		if (at)
			serve_simple(queue, work, mbufs + first, at);
		first += at;
		if (first == n)
			return;
		serve_apart(queue, work, mbufs[first++]);
		at = describe(queue, mbufs + first, n - first, work->frames);
	}
}

/* Frames that the kernel's stack transmits leave by this queue, as in the kernel without XDP. */
static u32 serve_stack(struct uxdp_dpdk_queue *queue)
{
	const struct uxdp_dpdk_port *port = &queue->ports[queue->port];
	struct rte_mbuf *mbuf;
	u32 n = 0;

	for (; n < UXDP_DPDK_BURST; n++) {
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

	for (u32 i = 0; i < n; i++) {
		struct rte_mbuf *mbuf = mbufs[i];
		const void *data = rte_pktmbuf_mtod(mbuf, void *);

		if (mbuf->nb_segs > 1 && queue->whole)
			data = rte_pktmbuf_read(mbuf, 0, mbuf->pkt_len, queue->whole);
		if (queue->stack_fd < 0 || (mbuf->nb_segs > 1 && !queue->whole) ||
		    !pass_bytes(queue->stack_fd, data, mbuf->pkt_len))
			queue->state->cpumap_lost++;
	}
	if (n)
		rte_pktmbuf_free_bulk(mbufs, n);
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

	__atomic_store_n(&queue->taken, queue->taken + 1, __ATOMIC_RELEASE);
	if (n) {
		u64 start = ticks_ns(ticks);

		serve_burst(queue, work, mbufs, n);
		account(queue->state, start, ticks_ns(ticks), n);
	}
	return n;
}

static void rest(struct uxdp_dpdk_queue *queue, u32 idle)
{
	struct timespec pause = {.tv_nsec = UXDP_PAUSE_NS};

	if (queue->power == UXDP_POWER_POLL || idle < UXDP_PAUSE_TURNS) {
		rte_pause();
		return;
	}
	queue->state->polls++;
	nanosleep(&pause, NULL);
}

static bool timer_is_due(const struct uxdp_dpdk_queue *queue, struct ticks *ticks)
{
	const u64 *known = queue->worker->next_timer_ns;
	u64 next = known ? __atomic_load_n(known, __ATOMIC_RELAXED) : 0;

	return next && next <= ticks_ns(ticks);
}

/* Begin after another data process, whose frames went with its memory. */
void uxdp_dpdk_recover(struct uxdp_dpdk_queue *queue)
{
	account_ended(queue->state);
}

void uxdp_dpdk_serve(struct uxdp_dpdk_queue *queue)
{
	static __thread struct work work;
	struct ticks ticks;
	u64 stack_due = 0;
	u32 idle = 0, left;

	if (rte_thread_register() < 0)
		return;
	ticks_begin(&ticks);
	for (u32 i = 0; i < UXDP_DPDK_BURST; i++) {
		work.frames[i].ingress_ifindex = queue->ports[queue->port].ifindex;
		work.frames[i].rx_queue_index = queue->queue_id;
	}
	while (goes_on(queue)) {
		idle = serve_turn(queue, &work, &ticks) ? 0 : idle + 1;
		if (unlikely(queue->rings))
			serve_ring(queue);
		if (queue->stack_fd >= 0 && rte_rdtsc() > stack_due) {
			u64 pause = serve_stack(queue) ? 0 : UXDP_STACK_IDLE_NS;

			stack_due = rte_rdtsc() + pause * ticks.hz / NSEC_PER_SEC;
		}
		if (likely(!idle))
			continue;
		if (idle % UXDP_HEARTBEAT_TURNS == 1)
			__atomic_store_n(&queue->state->heartbeat_ns, ticks_ns(&ticks),
					 __ATOMIC_RELAXED);
		if (unlikely(timer_is_due(queue, &ticks)))
			queue->run(work.frames, 0);
		rest(queue, idle);
	}
	/* What was received is finished; who sends on and on is not waited for. */
	left = queue->ports[queue->port].num_descriptors;
	for (u32 n = 1; n && left; left -= n < left ? n : left)
		n = serve_turn(queue, &work, &ticks);
	if (queue->rings)
		serve_ring(queue);
	rte_thread_unregister();
}
