/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The loop of the AF_XDP port. Under load it takes bursts of up to UXDP_RX_BURST frames and lets
 * what is to be passed or transmitted wait until the RX ring is empty or UXDP_PENDING frames wait;
 * then one system call injects them all: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES runs a
 * program of ours on as many frames, and what it returns happens to them as if they had just been
 * received on the interface. That is the only way into the interface's own stack, and transmits at
 * a third of what the TX ring costs per frame; but a call costs 20 us, as much as 200 frames more
 * in it. So a few frames go by the ring, and where many come, they wait for some more.
 */
#include "pieces.h"
#include "recovery.h"

#define UXDP_IDLE_MS 100
/* Some dozen frames' time; beside UXDP_IDLE_MS it is nothing. */
#define UXDP_SPIN_NS 30000ull
#define UXDP_GATHER_NS 4000ull
/* An injecting call that has fewer frames is dear, one that has more hardly cheaper for each. */
#define UXDP_FEW_INJECTED 128u
#define UXDP_MANY_INJECTED 512u
/* What a call costs before its first frame, nearly: who waits so long in vain has lost no more. */
#define UXDP_AWAIT_NS 16000ull
#define UXDP_IDLE_TURNS (1u << 20) /* of a loop that never sleeps: some 100 ms, too */

/*
 * The kernel wrote the frame on another CPU. Most programs read its headers and write them, many
 * put another in front, which is a line that this CPU may not have had for as long as there are
 * chunks.
 */
UXDP_INLINE void fetch_frame(const u8 *data)
{
	__builtin_prefetch(data, 1);
	__builtin_prefetch(data - CACHE_LINE, 1);
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
		fetch_frame(queue->umem + desc.addr);
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

/* What our program on the interface was told of the frames (native/bpf/redirect_metadata.bpf.c). */
static void describe_frames(struct uxdp_queue *queue, const struct uxdp_frame *frames,
			    struct uxdp_rx_metadata *metadata, u32 n)
{
	for (u32 i = 0; i < n; i++)
		metadata[i] =
		    metadata_before((const u8 *)frames[i].hard_start, (u8 *)frames[i].data);
	queue->asking->rx_metadata = metadata;
}

/* poll() says nothing of a socket whose interface has gone; sendto() does. Source: net/xdp/xsk.c */
static void check_interface(struct uxdp_queue *queue)
{
	if (sendto(queue->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && *__errno_location() == ENXIO)
		__atomic_store_n(&queue->state->gone, 1, __ATOMIC_RELAXED);
}

/*
 * Have the kernel receive here and now, in this thread, instead of when and where it would: with
 * SO_PREFER_BUSY_POLL the call runs the interface's NAPI, of up to SO_BUSY_POLL_BUDGET frames.
 * Since Linux 6.14 only for sockets with zero-copy; for others it does nothing (net/xdp/xsk.c,
 * xsk_bind).
 */
static void poll_interface(struct uxdp_queue *queue)
{
	recvfrom(queue->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

/*
 * Who looks at the rings after every few frames takes their cache lines from the kernel's side each
 * time, and slows it down; larger bursts are cheaper for both. By the clock, for a pause takes 10
 * ns on one CPU and 50 on another.
 */
static void let_frames_gather(void)
{
	u64 start = clock_ns(CLOCK_MONOTONIC);

	do
		cpu_relax();
	while (clock_ns(CLOCK_MONOTONIC) - start < UXDP_GATHER_NS);
}

/* How long to sleep at most: a timer is called no sooner than it is due, and a millisecond later.
 */
static s32 milliseconds_to_timer(const struct uxdp_queue *queue)
{
	u64 next = __atomic_load_n(queue->next_timer_ns, __ATOMIC_RELAXED);
	u64 now = clock_ns(CLOCK_MONOTONIC);

	if (!next || next > now + UXDP_IDLE_MS * 1000000ull)
		return UXDP_IDLE_MS;
	return next <= now ? 0 : (next - now) / 1000000 + 1;
}

static bool timer_is_due(const struct uxdp_queue *queue)
{
	u64 next = __atomic_load_n(queue->next_timer_ns, __ATOMIC_RELAXED);

	return unlikely(next) && next <= clock_ns(CLOCK_MONOTONIC);
}

static void wait_for_frames(struct uxdp_queue *queue)
{
	struct pollfd fds[2] = {
	    {.fd = queue->fd, .events = POLLIN},
	    {.fd = queue->wake_fd, .events = POLLIN},
	};
	s32 idle_ms;

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
	idle_ms = milliseconds_to_timer(queue);
	if (poll(fds, 2, idle_ms) == 0 && idle_ms == UXDP_IDLE_MS)
		check_interface(queue);
}

/*
 * Whether the batch, with the RX ring empty, is to wait: at a rate at which many frames left the
 * last time it is worth it, and soon over if there are no more. Below that rate nothing waits.
 */
UXDP_INLINE bool awaits_frames(const struct batch *batch, u64 now)
{
	return batch->last_n >= UXDP_FEW_INJECTED && batch->n < UXDP_MANY_INJECTED &&
	       now - batch->newest_ns < UXDP_AWAIT_NS;
}

/* What has been done by now: frames that left waited since the first one's burst began. */
static void account(struct uxdp_queue_state *state, const struct batch *batch, u64 start, u32 done,
		    u32 left)
{
	u64 now = clock_ns(CLOCK_MONOTONIC);

	account_latency(state, now - start, done);
	account_latency(state, now - batch->oldest_ns, left);
	account_work(state, start, now);
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
	struct uxdp_rx_metadata metadata[UXDP_RX_BURST];
	struct batch batch;
	u32 idle = 0;

	batch.n = batch.transmits = batch.last_n = 0;
	if (queue->transmitted)
		queue->transmitted->thread = syscall(SYS_gettid);
	while (goes_on(queue)) {
		u64 start = clock_ns(CLOCK_MONOTONIC);
		u32 n = receive(queue, frames, received);
		u32 held = batch.n, done = 0, left = 0;

		if (!held)
			batch.oldest_ns = start;
		if (n) {
			if (unlikely(queue->asking))
				describe_frames(queue, frames, metadata, n);
			queue->run(frames, n);
			for (u32 i = 0; i < n; i++)
				if (dispose(queue, &batch, &frames[i], received[i].addr,
					    received[i].len))
					release_chunk(queue, received[i].addr);
			done = n - (batch.n - held);
		} else if (unlikely(begins_in_pieces(queue))) {
			serve_in_pieces(queue, &batch, count_pieces(queue));
			n = done = 1;
			left = held;
		}
		if (n) {
			batch.newest_ns = start;
			queue->state->bursts++;
		}
		if (batch.n > UXDP_PENDING - UXDP_RX_BURST ||
		    (batch.n && n < UXDP_RX_BURST && !awaits_frames(&batch, start))) {
			left = batch.n;
			flush(queue, &batch);
		}
		reclaim(queue);
		provide_chunks(queue);
		if (n || left)
			account(queue->state, &batch, start, done, left);
		if (n) {
			if (n < UXDP_RX_BURST / 2 && !queue->busy_poll)
				let_frames_gather();
			continue;
		}
		if (timer_is_due(queue))
			queue->run(frames, 0);
		if (batch.n) {
			if (queue->busy_poll)
				poll_interface(queue);
			else
				let_frames_gather();
			continue;
		}
		kick(queue);
		__atomic_store_n(&queue->state->heartbeat_ns, start, __ATOMIC_RELAXED);
		if (queue->busy_poll) {
			poll_interface(queue);
			if (++idle % UXDP_IDLE_TURNS == 0)
				check_interface(queue);
		} else if (!ring_available(&queue->rx)) {
			wait_for_frames(queue);
		}
	}
	flush(queue, &batch);
	reclaim(queue);
}
