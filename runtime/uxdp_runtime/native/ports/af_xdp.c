/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The loop of the AF_XDP port. Under load it takes bursts of up to UXDP_RX_BURST frames and lets
 * what is to be passed or transmitted wait until the RX ring is empty or UXDP_PENDING frames wait;
 * then one system call injects them all: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES runs a
 * program of ours on as many frames, and what it returns happens to them as if they had just been
 * received on the interface. That is the only way into the interface's own stack, and transmits at
 * a third of what the TX ring costs per frame; but a call costs 20 us, so a few frames go by the
 * ring.
 */
#include "af_xdp.h"
#include "../clock.h"

#define UXDP_STALL_NS 1000000ull /* a call is ~20 us; 1 ms: somebody waits for RCU */
/* Below so many frames the TX ring is cheaper than a call (measured on veth, see DESIGN 11). */
#define UXDP_MIN_INJECTED 20u
#define UXDP_IDLE_MS 100
#define UXDP_MAX_KICKS                                                                             \
	64u /* sendto() transmits 32 descriptors, then it wants to be called again                 \
	     */

#define XDP_RING_NEED_WAKEUP 1u
#define XDP_PKT_CONTD 1u
#define BPF_PROG_TEST_RUN 10
#define BPF_F_TEST_XDP_LIVE_FRAMES (1u << 1)
#define MSG_DONTWAIT 0x40
#define POLLIN 1
#if defined(__x86_64__)
#define SYS_bpf 321
#define SYS_gettid 186
#else
#define SYS_bpf 280
#define SYS_gettid 178
#endif

struct pollfd {
	s32 fd;
	short events;
	short revents;
};

extern int poll(struct pollfd *fds, u64 n, int timeout_ms);
extern s64 sendto(int fd, const void *buffer, u64 len, int flags, const void *addr, u32 addr_len);
extern long syscall(long number, ...);
extern int *__errno_location(void);

/* A frame that waits for its disposal, in its chunk. */
struct pending {
	u64 addr; /* in the UMEM */
	u32 len;
	u32 rx_len;
	u32 action;
	u32 ifindex;
};

struct batch {
	struct pending frames[UXDP_PENDING];
	u32 n;
	u32 transmits;
};

UXDP_INLINE u32 chunk_of(const struct uxdp_queue *queue, u64 addr)
{
	return (addr - queue->first_chunk) / queue->chunk_bytes;
}

UXDP_INLINE bool is_ours(const struct uxdp_queue *queue, u64 addr, u64 len)
{
	u64 chunk = (addr - queue->first_chunk) / queue->chunk_bytes;

	return addr >= queue->first_chunk && chunk < queue->state->num_chunks &&
	       len <= queue->chunk_bytes &&
	       (addr - queue->first_chunk) % queue->chunk_bytes <= queue->chunk_bytes - len;
}

UXDP_INLINE void set_owner(struct uxdp_queue *queue, u64 addr, enum uxdp_chunk_owner owner)
{
	__atomic_store_n(&queue->state->owner[chunk_of(queue, addr)], owner, __ATOMIC_RELAXED);
}

/* Give a chunk back, whatever address inside of it is known. */
UXDP_INLINE void release_chunk(struct uxdp_queue *queue, u64 addr)
{
	queue->free[queue->num_free++] =
	    queue->first_chunk + (u64)chunk_of(queue, addr) * queue->chunk_bytes;
}

UXDP_INLINE u32 ring_available(struct uxdp_ring *ring)
{
	if (ring->cached_producer == ring->cached_consumer)
		ring->cached_producer = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	return ring->cached_producer - ring->cached_consumer;
}

UXDP_INLINE u32 ring_room(struct uxdp_ring *ring)
{
	u32 size = ring->mask + 1;

	if (ring->cached_producer - ring->cached_consumer == size)
		ring->cached_consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	return size - (ring->cached_producer - ring->cached_consumer);
}

static void reclaim(struct uxdp_queue *queue)
{
	struct uxdp_ring *ring = &queue->completion;
	const u64 *addrs = ring->descriptors;
	u32 n;

	ring->cached_producer = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
	n = ring->cached_producer - ring->cached_consumer;
	for (u32 i = 0; i < n; i++) {
		u64 addr = addrs[ring->cached_consumer++ & ring->mask];

		if (unlikely(!is_ours(queue, addr, 0) ||
			     queue->state->owner[chunk_of(queue, addr)] != UXDP_CHUNK_TX))
			continue;
		set_owner(queue, addr, UXDP_CHUNK_USER);
		release_chunk(queue, addr);
	}
	if (n)
		__atomic_store_n(ring->consumer, ring->cached_consumer, __ATOMIC_RELEASE);
}

static void provide_chunks(struct uxdp_queue *queue)
{
	struct uxdp_ring *ring = &queue->fill;
	u64 *addrs = ring->descriptors;
	u32 room, n;

	ring->cached_consumer = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
	room = ring_room(ring);
	n = queue->num_free < room ? queue->num_free : room;
	if (!n)
		return;
	__atomic_store_n(&queue->state->fill_pending, n, __ATOMIC_RELEASE);
	for (u32 i = 0; i < n; i++) {
		u64 addr = queue->free[--queue->num_free];

		addrs[ring->cached_producer++ & ring->mask] = addr;
		set_owner(queue, addr, UXDP_CHUNK_FILL);
	}
	__atomic_store_n(ring->producer, ring->cached_producer, __ATOMIC_RELEASE);
	__atomic_store_n(&queue->state->fill_pending, 0, __ATOMIC_RELEASE);
}

UXDP_INLINE void count_verdict(struct uxdp_queue *queue, const struct pending *frame)
{
	queue->state->verdict_frames[frame->action]++;
	queue->state->verdict_bytes[frame->action] += frame->rx_len;
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
	__atomic_store_n(&queue->state->tx_pending,
			 batch->transmits < room ? batch->transmits : room, __ATOMIC_RELEASE);
	for (u32 i = 0; i < batch->n; i++) {
		const struct pending *frame = &batch->frames[i];

		if (frame->action != XDP_TX)
			continue;
		if (unlikely(sent == room)) {
			lose(queue, UXDP_LOSS_TX_RING_FULL);
			release_chunk(queue, frame->addr);
			continue;
		}
		descriptors[ring->cached_producer++ & ring->mask] =
		    (struct xdp_desc){.addr = frame->addr, .len = frame->len};
		set_owner(queue, frame->addr, UXDP_CHUNK_TX);
		count_verdict(queue, frame);
		sent++;
	}
	__atomic_store_n(ring->producer, ring->cached_producer, __ATOMIC_RELEASE);
	__atomic_store_n(&queue->state->tx_pending, 0, __ATOMIC_RELEASE);
	queue->state->tx_by_ring += sent;
	kick(queue);
}

/* union bpf_attr for BPF_PROG_TEST_RUN, include/uapi/linux/bpf.h */
struct test_run {
	u32 prog_fd, retval, data_size_in, data_size_out;
	u64 data_in, data_out;
	u32 repeat, duration, ctx_size_in, ctx_size_out;
	u64 ctx_in, ctx_out;
	u32 flags, cpu, batch_size, zero;
};

/* Run the injector on the first n slots; how many it took. */
static u32 inject_slots(struct uxdp_queue *queue, u32 n)
{
	/* struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress */
	u32 context[6] = {0, queue->slots[0].len, 0, queue->ifindex, queue->queue_id, 0};
	struct test_run attr = {
	    .prog_fd = queue->inject_fd,
	    .data_size_in = queue->slots[0].len,
	    .data_in = (u64)queue->slots[0].data,
	    .ctx_size_in = sizeof(context),
	    .ctx_in = (u64)context,
	    .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
	    .batch_size = UXDP_RX_BURST,
	};
	u64 start = clock_ns(CLOCK_MONOTONIC);

	__atomic_store_n(queue->cursor, 0, __ATOMIC_RELEASE);
	for (u32 tries = 0; tries < 16; tries++) {
		u32 done = __atomic_load_n(queue->cursor, __ATOMIC_ACQUIRE);
		long result;

		if (done >= n)
			break;
		attr.repeat = n - done;
		result = syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr));
		queue->state->inject_calls++;
		if (result < 0 && *__errno_location() != EINTR && *__errno_location() != EAGAIN)
			break;
	}
	if (clock_ns(CLOCK_MONOTONIC) - start > UXDP_STALL_NS)
		queue->state->inject_stalls++;
	return __atomic_load_n(queue->cursor, __ATOMIC_ACQUIRE);
}

/* Frames that the driver refused were counted as sent; which they were is not told. */
static void account_refused(struct uxdp_queue *queue, const struct batch *batch, const u16 *index,
			    u32 n, u64 refused, u64 taken)
{
	if (likely(!refused))
		return;
	if (!taken && queue->tx_method == UXDP_TX_AUTO)
		queue->state->injection_refused = 1;
	for (u32 i = 0; i < n && refused; i++) {
		const struct pending *frame = &batch->frames[index[i]];

		if (frame->action == XDP_PASS)
			continue;
		queue->state->verdict_frames[frame->action]--;
		queue->state->verdict_bytes[frame->action] -= frame->rx_len;
		queue->state->tx_by_injection -= frame->action == XDP_TX;
		lose(queue, UXDP_LOSS_REFUSED);
		refused--;
	}
}

/* Inject the batch's frames in order; those with XDP_TX only if transmit is set. */
static void inject(struct uxdp_queue *queue, struct batch *batch, bool transmit)
{
	u16 index[UXDP_PENDING];
	u64 refused, taken;
	u32 n = 0, done;

	for (u32 i = 0; i < batch->n; i++) {
		const struct pending *frame = &batch->frames[i];
		struct uxdp_slot *slot = &queue->slots[n];

		if (frame->action == XDP_TX && !transmit)
			continue;
		if (unlikely(frame->len > UXDP_SLOT_DATA_BYTES)) {
			lose(queue, UXDP_LOSS_TOO_LONG);
			release_chunk(queue, frame->addr);
			continue;
		}
		slot->len = frame->len;
		slot->action = frame->action;
		slot->ifindex = frame->ifindex;
		__builtin_memcpy(slot->data, queue->umem + frame->addr, frame->len);
		release_chunk(queue, frame->addr);
		index[n++] = i;
	}
	if (!n)
		return;
	refused = queue->transmitted ? queue->transmitted->refused : 0;
	taken = queue->transmitted ? queue->transmitted->taken : 0;
	done = queue->inject_fd >= 0 ? inject_slots(queue, n) : 0;
	for (u32 i = 0; i < n; i++) {
		const struct pending *frame = &batch->frames[index[i]];

		if (unlikely(i >= done)) {
			lose(queue, UXDP_LOSS_INJECT_FAILED);
			continue;
		}
		count_verdict(queue, frame);
		queue->state->tx_by_injection += frame->action == XDP_TX;
	}
	if (queue->transmitted)
		account_refused(queue, batch, index, n, queue->transmitted->refused - refused,
				queue->transmitted->taken - taken);
}

static void flush(struct uxdp_queue *queue, struct batch *batch)
{
	bool transmit = batch->transmits &&
			(queue->tx_method == UXDP_TX_LIVE ||
			 (queue->tx_method == UXDP_TX_AUTO && !queue->state->injection_refused &&
			  batch->transmits >= UXDP_MIN_INJECTED));

	if (batch->transmits && !transmit)
		transmit_by_ring(queue, batch);
	if (transmit || batch->n > batch->transmits)
		inject(queue, batch, transmit);
	batch->n = batch->transmits = 0;
}

UXDP_INLINE void dispose(struct uxdp_queue *queue, struct batch *batch,
			 const struct uxdp_frame *frame, const struct xdp_desc *received)
{
	u32 len = frame->data_end - frame->data;
	struct pending *pending = &batch->frames[batch->n];

	*pending = (struct pending){
	    .addr = frame->data - (u64)queue->umem,
	    .len = len,
	    .rx_len = received->len,
	    .action = frame->verdict <= XDP_REDIRECT ? frame->verdict : XDP_ABORTED,
	};
	switch (pending->action) {
	case XDP_REDIRECT:
		if (frame->redirect_kind != UXDP_REDIRECT_NONE)
			pending->ifindex = frame->redirect_target;
		if (!pending->ifindex) {
			lose(queue, UXDP_LOSS_NO_TARGET);
			break;
		}
		batch->n++;
		return;
	case XDP_TX:
		batch->transmits++;
		batch->n++;
		return;
	case XDP_PASS:
		batch->n++;
		return;
	default:
		count_verdict(queue, pending);
	}
	release_chunk(queue, received->addr);
}

/* Take up to a burst out of the RX ring; returns how many frames are to be run. */
static u32 receive(struct uxdp_queue *queue, struct uxdp_frame *frames, struct xdp_desc *received)
{
	const struct xdp_desc *descriptors = queue->rx.descriptors;
	u32 available = ring_available(&queue->rx);
	u32 taken = available < UXDP_RX_BURST ? available : UXDP_RX_BURST;
	u32 n = 0;

	for (u32 i = 0; i < taken; i++) {
		struct xdp_desc desc = descriptors[queue->rx.cached_consumer++ & queue->rx.mask];
		struct uxdp_frame *frame = &frames[n];
		u64 chunk;

		queue->state->rx_frames++;
		queue->state->rx_bytes += desc.len;
		if (unlikely(!is_ours(queue, desc.addr, desc.len))) {
			lose(queue, UXDP_LOSS_BAD_DESCRIPTOR);
			continue;
		}
		set_owner(queue, desc.addr, UXDP_CHUNK_USER);
		if (unlikely(desc.options & XDP_PKT_CONTD)) {
			lose(queue, UXDP_LOSS_FRAGMENTED);
			release_chunk(queue, desc.addr);
			continue;
		}
		chunk = (u64)queue->umem + queue->first_chunk +
			(u64)chunk_of(queue, desc.addr) * queue->chunk_bytes;
		frame->data = frame->data_meta = (u64)queue->umem + desc.addr;
		frame->data_end = frame->data + desc.len;
		frame->hard_start = chunk;
		frame->limit = chunk + queue->chunk_bytes - queue->tail_bytes;
		frame->ingress_ifindex = queue->ifindex;
		frame->rx_queue_index = queue->queue_id;
		frame->egress_ifindex = 0;
		received[n++] = desc;
	}
	if (taken)
		__atomic_store_n(queue->rx.consumer, queue->rx.cached_consumer, __ATOMIC_RELEASE);
	return n;
}

static void wait_for_frames(struct uxdp_queue *queue)
{
	struct pollfd fds[2] = {
	    {.fd = queue->fd, .events = POLLIN},
	    {.fd = queue->wake_fd, .events = POLLIN},
	};

	queue->state->polls++;
	poll(fds, 2, UXDP_IDLE_MS);
}

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
	for (u32 i = 0; i < state->fill_pending; i++) {
		u32 at = (queue->fill.cached_producer + i) & queue->fill.mask;

		own(queue, ((u64 *)queue->fill.descriptors)[at], UXDP_CHUNK_USER);
	}
	for (u32 i = 0; i < state->tx_pending; i++) {
		u32 at = (queue->tx.cached_producer + i) & queue->tx.mask;

		own(queue, ((struct xdp_desc *)queue->tx.descriptors)[at].addr, UXDP_CHUNK_USER);
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
	provide_chunks(queue);
}

UXDP_INLINE void account(struct uxdp_queue *queue, u64 start, u32 n)
{
	u64 now = clock_ns(CLOCK_MONOTONIC), took = now - start;
	u32 bucket = took ? 63 - __builtin_clzll(took) : 0;

	queue->state->busy_ns += took;
	queue->state->bursts++;
	queue->state->latency[bucket < UXDP_LATENCY_BUCKETS ? bucket : UXDP_LATENCY_BUCKETS - 1] +=
	    n;
	__atomic_store_n(&queue->state->heartbeat_ns, now, __ATOMIC_RELAXED);
}

void uxdp_af_xdp_serve(struct uxdp_queue *queue)
{
	struct uxdp_frame frames[UXDP_RX_BURST] = {{0}};
	struct xdp_desc received[UXDP_RX_BURST];
	struct batch batch = {.n = 0};

	if (queue->transmitted)
		queue->transmitted->thread = syscall(SYS_gettid);
	while (!__atomic_load_n(&queue->stop, __ATOMIC_ACQUIRE)) {
		u64 start = clock_ns(CLOCK_MONOTONIC);
		u32 n = receive(queue, frames, received);

		if (n) {
			queue->run(frames, n);
			for (u32 i = 0; i < n; i++)
				dispose(queue, &batch, &frames[i], &received[i]);
		}
		if (batch.n && (n < UXDP_RX_BURST || batch.n > UXDP_PENDING - UXDP_RX_BURST))
			flush(queue, &batch);
		reclaim(queue);
		provide_chunks(queue);
		if (n) {
			account(queue, start, n);
			continue;
		}
		kick(queue);
		__atomic_store_n(&queue->state->heartbeat_ns, start, __ATOMIC_RELAXED);
		if (!queue->busy_poll && !ring_available(&queue->rx))
			wait_for_frames(queue);
	}
	flush(queue, &batch);
	reclaim(queue);
}
