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
#include "samples.h"
#include "targets.h"
#include "../clock.h"

#define UXDP_STALL_NS 1000000ull /* a call is ~20 us; 1 ms: somebody waits for RCU */
/* Below so many frames the TX ring is cheaper than a call (measured on veth, see DESIGN 11). */
#define UXDP_MIN_INJECTED 20u
#define UXDP_IDLE_MS 100
/* Some dozen frames' time; beside UXDP_IDLE_MS it is nothing. */
#define UXDP_SPIN_NS 30000ull
#define UXDP_GATHER_TURNS 200u
#define UXDP_IDLE_TURNS (1u << 20) /* of a loop that never sleeps: some 100 ms, too */
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

#define NO_CHUNK UINT64_MAX

/* A frame that waits for its disposal, in its chunk. */
struct pending {
	u8 *data;
	u64 chunk; /* an address within, to be released; NO_CHUNK: it lies elsewhere */
	u32 len;
	u32 rx_len;
	u32 verdict;
	struct uxdp_target target;
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
	if (unlikely(addr == NO_CHUNK))
		return;
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

/* Note which entries are written, so that it can be told whose they are whenever this process ends.
 */
UXDP_INLINE void announce(u32 *from, u32 *pending, u32 producer, u32 n)
{
	*from = producer;
	__atomic_store_n(pending, n, __ATOMIC_RELEASE);
}

UXDP_INLINE void publish(struct uxdp_ring *ring, u32 *pending)
{
	__atomic_store_n(ring->producer, ring->cached_producer, __ATOMIC_RELEASE);
	__atomic_store_n(pending, 0, __ATOMIC_RELEASE);
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
	for (u32 i = 0; i < n; i++)
		addrs[(ring->cached_producer + i) & ring->mask] =
		    queue->free[queue->num_free - 1 - i];
	announce(&queue->state->fill_from, &queue->state->fill_pending, ring->cached_producer, n);
	for (u32 i = 0; i < n; i++)
		set_owner(queue, queue->free[--queue->num_free], UXDP_CHUNK_FILL);
	ring->cached_producer += n;
	publish(ring, &queue->state->fill_pending);
}

UXDP_INLINE void count_verdict(struct uxdp_queue *queue, const struct pending *frame)
{
	queue->state->verdict_frames[frame->verdict]++;
	queue->state->verdict_bytes[frame->verdict] += frame->rx_len;
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
	for (u32 i = 0; i < batch->n; i++) {
		const struct pending *frame = &batch->frames[i];

		if (frame->verdict != XDP_TX)
			continue;
		if (unlikely(sent == room)) {
			lose(queue, UXDP_LOSS_TX_RING_FULL);
			release_chunk(queue, frame->chunk);
			continue;
		}
		descriptors[(ring->cached_producer + sent++) & ring->mask] =
		    (struct xdp_desc){.addr = frame->data - queue->umem, .len = frame->len};
		count_verdict(queue, frame);
	}
	announce(&queue->state->tx_from, &queue->state->tx_pending, ring->cached_producer, sent);
	for (u32 i = 0; i < sent; i++)
		set_owner(queue, descriptors[ring->cached_producer++ & ring->mask].addr,
			  UXDP_CHUNK_TX);
	publish(ring, &queue->state->tx_pending);
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

/* The slots that are filled, and which of the batch's frames each is of. */
struct injection {
	u32 n;
	u8 index[UXDP_PENDING];
	bool is_copy[UXDP_PENDING]; /* one of several of a frame that was counted already */
};

_Static_assert(UXDP_PENDING <= 256, "an index is a byte");

/*
 * Frames that the driver refused, or that the injector could not make, were counted as sent; which
 * they were is not told.
 */
static void account_refused(struct uxdp_queue *queue, const struct batch *batch,
			    const struct injection *injection, u64 refused, enum uxdp_loss loss)
{
	for (u32 i = 0; i < injection->n && unlikely(refused); i++) {
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

	if (!injection->n)
		return;
	if (queue->transmitted)
		before = *(volatile struct uxdp_transmitted *)queue->transmitted;
	done = queue->inject_fd >= 0 ? inject_slots(queue, injection->n) : 0;
	for (u32 i = 0; i < injection->n; i++) {
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
	injection->n = injection->n < done ? injection->n : done;
	if (after.refused != before.refused) {
		if (after.taken == before.taken && queue->tx_method == UXDP_TX_AUTO)
			queue->state->injection_refused = 1;
		account_refused(queue, batch, injection, after.refused - before.refused,
				UXDP_LOSS_REFUSED);
	}
	account_refused(queue, batch, injection, after.failed - before.failed,
			UXDP_LOSS_INJECT_FAILED);
	injection->n = 0;
}

static void fill_slot(struct uxdp_queue *queue, const struct batch *batch,
		      struct injection *injection, u32 index, u32 ifindex, bool is_copy)
{
	const struct pending *frame = &batch->frames[index];
	struct uxdp_slot *slot;

	if (unlikely(injection->n == UXDP_PENDING))
		inject_filled(queue, batch, injection);
	slot = &queue->slots[injection->n];
	slot->len = frame->len;
	slot->action = frame->target.action;
	slot->ifindex = ifindex;
	__builtin_memcpy(slot->data, frame->data, frame->len);
	injection->index[injection->n] = index;
	injection->is_copy[injection->n++] = is_copy;
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

	injection.n = 0;
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
	struct injection injection = {.n = 0};
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
	batch->n = batch->transmits = 0;
}

/* Queue a frame for disposal, or be done with it: whether its chunk is free. */
UXDP_INLINE bool dispose(struct uxdp_queue *queue, struct batch *batch,
			 const struct uxdp_frame *frame, u64 chunk, u32 rx_len)
{
	struct pending *pending = &batch->frames[batch->n];

	if (unlikely(queue->samples) && !--queue->sample_in)
		take_sample(queue, frame);
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
		if (!find_target(queue, frame, &pending->target)) {
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

/*
 * Take up to a burst out of the RX ring, but no frame of several buffers; returns how many frames
 * are to be run.
 */
static u32 receive(struct uxdp_queue *queue, struct uxdp_frame *frames, struct xdp_desc *received)
{
	const struct xdp_desc *descriptors = queue->rx.descriptors;
	u32 available = ring_available(&queue->rx);
	u32 taken = available < UXDP_RX_BURST ? available : UXDP_RX_BURST;
	u32 n = 0;

	for (u32 i = 0; i < taken; i++) {
		struct xdp_desc desc = descriptors[queue->rx.cached_consumer & queue->rx.mask];
		struct uxdp_frame *frame = &frames[n];
		u64 chunk;

		if (unlikely(desc.options & XDP_PKT_CONTD))
			break;
		queue->rx.cached_consumer++;
		queue->state->rx_frames++;
		queue->state->rx_bytes += desc.len;
		if (unlikely(!is_ours(queue, desc.addr, desc.len))) {
			lose(queue, UXDP_LOSS_BAD_DESCRIPTOR);
			continue;
		}
		set_owner(queue, desc.addr, UXDP_CHUNK_USER);
		chunk = (u64)queue->umem + queue->first_chunk +
			(u64)chunk_of(queue, desc.addr) * queue->chunk_bytes;
		frame->data = frame->data_meta = (u64)queue->umem + desc.addr;
		frame->data_end = frame->data + desc.len;
		frame->hard_start = chunk;
		frame->limit = chunk + queue->chunk_bytes - queue->tail_bytes;
		if (unlikely(frame->limit < frame->data_end)) /* it cannot grow, but shrink */
			frame->limit = frame->data_end;
		frame->ingress_ifindex = queue->ifindex;
		frame->rx_queue_index = queue->queue_id;
		frame->egress_ifindex = 0;
		received[n++] = desc;
	}
	if (taken)
		__atomic_store_n(queue->rx.consumer, queue->rx.cached_consumer, __ATOMIC_RELEASE);
	return n;
}

/* poll() says nothing of a socket whose interface has gone; sendto() does. Source: net/xdp/xsk.c */
static void check_interface(struct uxdp_queue *queue)
{
	if (sendto(queue->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && *__errno_location() == ENXIO)
		__atomic_store_n(&queue->state->gone, 1, __ATOMIC_RELAXED);
}

/*
 * Some 4 us. Who looks at the rings after every few frames takes their cache lines from the
 * kernel's side each time, and slows it down; larger bursts are cheaper for both.
 */
static void let_frames_gather(void)
{
	for (u32 i = 0; i < UXDP_GATHER_TURNS; i++)
		cpu_relax();
}

static void wait_for_frames(struct uxdp_queue *queue)
{
	struct pollfd fds[2] = {
	    {.fd = queue->fd, .events = POLLIN},
	    {.fd = queue->wake_fd, .events = POLLIN},
	};

	/*
	 * A thread that sleeps is woken by whoever receives, and that costs the receiver more than
	 * a frame does. So as long as frames keep coming, look again for a while before sleeping.
	 */
	for (u64 start = clock_ns(CLOCK_MONOTONIC);
	     clock_ns(CLOCK_MONOTONIC) - start < UXDP_SPIN_NS;) {
		let_frames_gather();
		if (ring_available(&queue->rx) || __atomic_load_n(&queue->stop, __ATOMIC_ACQUIRE))
			return;
	}
	queue->state->polls++;
	if (poll(fds, 2, UXDP_IDLE_MS) == 0)
		check_interface(queue);
}

static void own(struct uxdp_queue *queue, u64 addr, enum uxdp_chunk_owner owner)
{
	if (is_ours(queue, addr, 0))
		set_owner(queue, addr, owner);
}

/* Frames that were received, but whose verdict the last data process did not live to count. */
static void account_ended(struct uxdp_queue_state *state)
{
	u64 counted = 0;

	for (u32 i = 0; i <= XDP_REDIRECT; i++)
		counted += state->verdict_frames[i];
	for (u32 i = 0; i < UXDP_LOSSES; i++)
		counted += state->lost[i];
	if (state->rx_frames > counted)
		state->lost[UXDP_LOSS_ENDED] += state->rx_frames - counted;
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

UXDP_INLINE bool goes_on(struct uxdp_queue *queue)
{
	u32 stop = __atomic_load_n(&queue->stop, __ATOMIC_ACQUIRE);

	if (__atomic_load_n(&queue->state->gone, __ATOMIC_RELAXED))
		return false;
	return !stop || (stop == UXDP_STOP_DRAINED && ring_available(&queue->rx));
}

void uxdp_af_xdp_serve(struct uxdp_queue *queue)
{
	struct uxdp_frame frames[UXDP_RX_BURST] = {{0}};
	struct xdp_desc received[UXDP_RX_BURST];
	struct batch batch = {.n = 0};
	u32 idle = 0;

	if (queue->transmitted)
		queue->transmitted->thread = syscall(SYS_gettid);
	while (goes_on(queue)) {
		u64 start = clock_ns(CLOCK_MONOTONIC);
		u32 n = receive(queue, frames, received);

		if (n) {
			queue->run(frames, n);
			for (u32 i = 0; i < n; i++)
				if (dispose(queue, &batch, &frames[i], received[i].addr,
					    received[i].len))
					release_chunk(queue, received[i].addr);
		} else if (unlikely(begins_in_pieces(queue))) {
			serve_in_pieces(queue, &batch, count_pieces(queue));
			n = 1;
		}
		if (batch.n && (n < UXDP_RX_BURST || batch.n > UXDP_PENDING - UXDP_RX_BURST))
			flush(queue, &batch);
		reclaim(queue);
		provide_chunks(queue);
		if (n) {
			account(queue, start, n);
			if (n < UXDP_RX_BURST / 2 && !queue->busy_poll)
				let_frames_gather();
			continue;
		}
		kick(queue);
		__atomic_store_n(&queue->state->heartbeat_ns, start, __ATOMIC_RELAXED);
		if (!queue->busy_poll && !ring_available(&queue->rx))
			wait_for_frames(queue);
		else if (queue->busy_poll && ++idle % UXDP_IDLE_TURNS == 0)
			check_interface(queue);
	}
	flush(queue, &batch);
	reclaim(queue);
}
