/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What a queue's thread does when there are no frames: poll on, sleep a little, or sleep until the
 * device's interrupt. And the clock, which a thread that polls looks at all the time.
 *
 * Reference: https://doc.dpdk.org/guides-22.11/prog_guide/poll_mode_drv.html, "Rx interrupt"
 */
#ifndef UXDP_PORTS_DPDK_IDLE_H
#define UXDP_PORTS_DPDK_IDLE_H

#include "dpdk_open.h"

#include <sys/epoll.h>

#include <rte_interrupts.h>

#define UXDP_EAGER_TURNS 8u    /* without frames, before anything but frames is looked after */
#define UXDP_PAUSE_TURNS 2000u /* without frames, before it sleeps: some 40 us */
#define UXDP_PAUSE_NS 50000    /* at first; a sleep takes longer than that: about as long again */
#define UXDP_LONG_PAUSE_NS 400000
#define UXDP_SHORT_PAUSES 20u
/* No interrupt says that another worker sent frames by a cpumap, or that one was lost. */
#define UXDP_INTERRUPT_MS 100
#define UXDP_RING_MS 1
#define UXDP_EVENTS 4

/*
 * The CPU's counter as CLOCK_MONOTONIC, whose own reading would take as long as two frames do. Set
 * right 16 times a second.
 */
struct ticks {
	u64 hz;
	u64 base;
	u64 base_ns;
	u64 ns_per_tick; /* times 2^32 */
	u64 served_ns;	 /* when the last turn's frames were disposed of; 0: it had none */
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

static void tell_alive(struct uxdp_dpdk_queue *queue, struct ticks *ticks)
{
	__atomic_store_n(&queue->state->heartbeat_ns, ticks_ns(ticks), __ATOMIC_RELAXED);
}

static u64 next_timer_ns(const struct uxdp_dpdk_queue *queue)
{
	const u64 *known = queue->worker->next_timer_ns;

	return known ? __atomic_load_n(known, __ATOMIC_RELAXED) : 0;
}

static bool timer_is_due(const struct uxdp_dpdk_queue *queue, struct ticks *ticks)
{
	u64 next = next_timer_ns(queue);

	return next && next <= ticks_ns(ticks);
}

/* The longer it was idle the longer; so a burst that follows another waits less. */
static void pause_a_little(struct uxdp_dpdk_queue *queue, u32 idle)
{
	bool begins = idle < UXDP_PAUSE_TURNS + UXDP_SHORT_PAUSES;
	struct timespec pause = {.tv_nsec = begins ? UXDP_PAUSE_NS : UXDP_LONG_PAUSE_NS};

	queue->state->polls++;
	nanosleep(&pause, NULL);
}

/* Wait for a descriptor that is no device's, too. */
static void wake_by(s32 fd, struct rte_epoll_event *event)
{
	event->epdata.event = EPOLLIN;
	if (fd >= 0)
		rte_epoll_ctl(RTE_EPOLL_PER_THREAD, EPOLL_CTL_ADD, fd, event);
}

/* Let this thread be woken: by the queue's interrupt, the stack, and who stops the service; false:
 * it cannot. */
static bool prepare_to_sleep(struct uxdp_dpdk_queue *queue)
{
	static __thread struct rte_epoll_event stack, stop;
	u16 port_id = queue->ports[queue->port].port_id;

	if (queue->power != UXDP_POWER_INTERRUPT ||
	    rte_eth_dev_rx_intr_ctl_q(port_id, queue->queue_id, RTE_EPOLL_PER_THREAD,
				      RTE_INTR_EVENT_ADD, NULL))
		return false;
	wake_by(queue->stack_fd, &stack);
	wake_by(queue->wake_fd, &stop);
	return true;
}

static void disarm_interrupt(struct uxdp_dpdk_queue *queue)
{
	rte_eth_dev_rx_intr_disable(queue->ports[queue->port].port_id, queue->queue_id);
}

static void await_interrupt(struct uxdp_dpdk_queue *queue, struct ticks *ticks)
{
	struct rte_epoll_event events[UXDP_EVENTS];
	u64 next = next_timer_ns(queue), now = ticks_ns(ticks);
	s32 most_ms = queue->rings ? UXDP_RING_MS : UXDP_INTERRUPT_MS;

	if (next && next < now + most_ms * 1000000ull)
		most_ms = next <= now ? 0 : (next - now) / 1000000 + 1;
	queue->state->polls++;
	rte_epoll_wait(RTE_EPOLL_PER_THREAD, events, UXDP_EVENTS, most_ms);
	tell_alive(queue, ticks);
}

#endif
