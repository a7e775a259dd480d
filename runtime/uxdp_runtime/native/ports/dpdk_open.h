/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * EAL and its ports: begun, looked at, and given up by the data process's main thread.
 */
#ifndef UXDP_PORTS_DPDK_OPEN_H
#define UXDP_PORTS_DPDK_OPEN_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_spinlock.h>
#include <rte_version.h>

#undef likely
#undef unlikely
#include "dpdk.h"

#define NSEC_PER_SEC 1000000000ull

UXDP_INLINE u64 clock_ns(s32 clock)
{
	struct timespec now = {0};

	clock_gettime(clock, &now);
	return (u64)now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

#define UXDP_DPDK_DESCRIPTORS 1024u
/*
 * A mempool takes back half as many again as its cache holds before it goes to the ring that all
 * share. So a burst that is received and freed stays in the cache: with 250 and bursts of 128 it
 * does not, and a frame takes half as long again.
 */
#define UXDP_DPDK_POOL_CACHE 256u
_Static_assert(UXDP_DPDK_POOL_CACHE / 2 >= UXDP_DPDK_BURST, "a burst is too long for the cache");
/* Frames that are still taken out of a port's queue when it is given up, at most. */
#define UXDP_DPDK_LEFTOVERS 4096u

/* Begin EAL, whose messages go to log_fd; 0 or -errno. */
s32 uxdp_dpdk_init(s32 argc, char **argv, s32 log_fd)
{
	FILE *log = fdopen(log_fd, "w");

	if (log) {
		setvbuf(log, NULL, _IONBF, 0);
		rte_openlog_stream(log);
	}
	return rte_eal_init(argc, argv) < 0 ? -(rte_errno ? rte_errno : EIO) : 0;
}

__attribute__((format(printf, 3, 4))) static s32 refuse(struct uxdp_dpdk_port *port, s32 error,
							const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(port->error, sizeof(port->error), format, arguments);
	va_end(arguments);
	return error < 0 ? error : -EIO;
}

/*
 * Behind their headroom buffers are chunk_bytes long, not with it: devices fill buffers whose
 * length is a round number, and some take 1792 bytes for 1024; net_memif copies a frame at once if
 * a buffer is as long as its own, 2048.
 */
static s32 make_pool(struct uxdp_dpdk_port *port)
{
	static u32 made;
	char name[RTE_MEMPOOL_NAMESIZE];
	u32 cache = port->num_mbufs / 4;

	snprintf(name, sizeof(name), "uxdp%u", made++);
	if (cache > UXDP_DPDK_POOL_CACHE)
		cache = UXDP_DPDK_POOL_CACHE;
	port->pool =
	    rte_pktmbuf_pool_create(name, port->num_mbufs, cache, UXDP_MBUF_PRIVATE_BYTES,
				    port->chunk_bytes + RTE_PKTMBUF_HEADROOM, port->socket);
	if (!port->pool)
		return refuse(port, -rte_errno, "no memory for %u buffers of %u bytes: %s",
			      port->num_mbufs, port->chunk_bytes, rte_strerror(rte_errno));
	port->state->closed = 0;
	port->state->mbufs = port->state->mbufs_free = port->num_mbufs;
	return 0;
}

/* What a program can ask of hardware, and what it needs to spread flows over queues. */
static void choose_offloads(struct uxdp_dpdk_port *port, const struct rte_eth_dev_info *info,
			    struct rte_eth_conf *conf)
{
	u64 rx = RTE_ETH_RX_OFFLOAD_RSS_HASH | RTE_ETH_RX_OFFLOAD_TIMESTAMP;
	u64 tx = 0;

	/* Fast freeing is for single mbufs of one pool, sending chains slows a driver down. */
	if (port->multi_buffer) {
		rx |= RTE_ETH_RX_OFFLOAD_SCATTER;
		tx |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	} else if (port->is_alone) {
		tx |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	}
	conf->rxmode.offloads = rx & info->rx_offload_capa;
	conf->txmode.offloads = tx & info->tx_offload_capa;
	port->can_chain = !!(conf->txmode.offloads & RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
	if (port->num_queues > 1) {
		u64 fields = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

		conf->rx_adv_conf.rss_conf.rss_hf = fields & info->flow_type_rss_offloads;
		if (conf->rx_adv_conf.rss_conf.rss_hf)
			conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	}
	if (!(conf->rxmode.mq_mode & RTE_ETH_MQ_RX_RSS_FLAG))
		conf->rxmode.offloads &= ~(u64)RTE_ETH_RX_OFFLOAD_RSS_HASH;
	conf->intr_conf.rxq = port->rx_interrupts;
}

static s32 set_up_queues(struct uxdp_dpdk_port *port)
{
	u16 rx = UXDP_DPDK_DESCRIPTORS, tx = UXDP_DPDK_DESCRIPTORS;
	s32 result = rte_eth_dev_adjust_nb_rx_tx_desc(port->port_id, &rx, &tx);

	if (result)
		return refuse(port, result, "no sizes of queues: %s", rte_strerror(-result));
	port->num_descriptors = rx;
	if (port->num_mbufs < port->num_queues * (rx + UXDP_DPDK_BURST))
		return refuse(port, -ENOBUFS, "%u buffers, and its RX queues alone take %u",
			      port->num_mbufs, port->num_queues * (rx + UXDP_DPDK_BURST));
	for (u32 i = 0; i < port->num_queues; i++) {
		result =
		    rte_eth_rx_queue_setup(port->port_id, i, rx, port->socket, NULL, port->pool);
		if (result)
			return refuse(port, result, "RX queue %u: %s", i, rte_strerror(-result));
		result = rte_eth_tx_queue_setup(port->port_id, i, tx, port->socket, NULL);
		if (result)
			return refuse(port, result, "TX queue %u: %s", i, rte_strerror(-result));
	}
	return 0;
}

/*
 * Let a queue's interrupt come; whether it will. A driver whose descriptor is readable as long as
 * there are frames has nothing to arm.
 */
static bool arm_interrupt(const struct uxdp_dpdk_port *port, u32 queue_id)
{
	s32 result = rte_eth_dev_rx_intr_enable(port->port_id, queue_id);

	return result == 0 || result == -ENOTSUP;
}

/* Whether threads can sleep until a queue has frames. */
static s32 check_interrupts(struct uxdp_dpdk_port *port)
{
	for (u32 i = 0; port->rx_interrupts && i < port->num_queues; i++) {
		if (rte_eth_dev_rx_intr_ctl_q_get_fd(port->port_id, i) < 0 ||
		    !arm_interrupt(port, i))
			return refuse(port, -EOPNOTSUPP,
				      "%s has no interrupts for what is received", port->driver);
		rte_eth_dev_rx_intr_disable(port->port_id, i);
	}
	return 0;
}

/* Find, configure and start a port; 0, or -errno and why in port->error. */
s32 uxdp_dpdk_open(struct uxdp_dpdk_port *port)
{
	struct rte_eth_conf conf = {0};
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac = {0};
	s32 dynamic, result;
	u16 id, mtu = 0;

	if (rte_eth_dev_get_port_by_name(port->name, &id))
		return refuse(port, -ENODEV, "DPDK has made no port of it");
	port->port_id = id;
	port->socket = rte_eth_dev_socket_id(id);
	result = rte_eth_dev_info_get(id, &info);
	if (result)
		return refuse(port, result, "tells nothing: %s", rte_strerror(-result));
	snprintf(port->driver, sizeof(port->driver), "%s", info.driver_name);
	if (info.if_index)
		port->kernel_ifindex = info.if_index;
	if (port->num_queues > info.max_rx_queues || port->num_queues > info.max_tx_queues)
		return refuse(port, -ERANGE, "%u queues are wanted: it has %u of RX, %u of TX",
			      port->num_queues, info.max_rx_queues, info.max_tx_queues);
	result = make_pool(port);
	if (result)
		return result;
	choose_offloads(port, &info, &conf);
	result = rte_eth_dev_configure(id, port->num_queues, port->num_queues, &conf);
	if (result && port->rx_interrupts)
		return refuse(port, result, "cannot be configured with interrupts: %s",
			      rte_strerror(-result));
	if (result)
		return refuse(port, result, "cannot be configured: %s", rte_strerror(-result));
	port->is_open = 1;
	result = set_up_queues(port);
	if (result)
		return result;
	port->tx_locks = calloc(port->num_queues, sizeof(rte_spinlock_t));
	if (!port->tx_locks)
		return refuse(port, -ENOMEM, "no memory");
	if (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_TIMESTAMP &&
	    !rte_mbuf_dyn_rx_timestamp_register(&dynamic, &port->timestamp_flag))
		port->timestamp_at = dynamic;
	rte_eth_macaddr_get(id, &mac);
	memcpy(port->mac, mac.addr_bytes, sizeof(mac.addr_bytes));
	rte_eth_dev_get_mtu(id, &mtu);
	port->mtu = mtu;
	result = rte_eth_dev_start(id);
	if (result)
		return refuse(port, result, "cannot be started: %s", rte_strerror(-result));
	port->is_started = 1;
	result = check_interrupts(port);
	if (result)
		return result;
	/* A program decides on every frame; not every driver can. */
	rte_eth_promiscuous_enable(id);
	uxdp_dpdk_observe(port);
	return 0;
}

/* Rings between workers, for cpumaps; 0 or -errno. */
s32 uxdp_dpdk_make_rings(void **rings, u32 num_workers)
{
	char name[32];

	for (u32 i = 0; i < num_workers; i++) {
		snprintf(name, sizeof(name), "uxdp-cpu-%u", i);
		rings[i] = rte_ring_create(name, UXDP_DPDK_CPU_RING, SOCKET_ID_ANY, RING_F_SC_DEQ);
		if (!rings[i])
			return -rte_errno;
	}
	return 0;
}

static void observe_xstats(struct uxdp_dpdk_port *port)
{
	static struct rte_eth_xstat_name names[UXDP_DPDK_XSTATS];
	static struct rte_eth_xstat values[UXDP_DPDK_XSTATS];
	s32 named = rte_eth_xstats_get_names(port->port_id, names, UXDP_DPDK_XSTATS);
	s32 n = rte_eth_xstats_get(port->port_id, values, UXDP_DPDK_XSTATS);

	if (n < 0 || named < n || n > (s32)UXDP_DPDK_XSTATS)
		n = 0;
	for (s32 i = 0; i < n; i++) {
		struct uxdp_dpdk_xstat *xstat = &port->state->xstats[i];

		memcpy(xstat->name, names[values[i].id].name, sizeof(xstat->name));
		xstat->value = values[i].value;
	}
	__atomic_store_n(&port->state->num_xstats, n, __ATOMIC_RELEASE);
}

/* Write down what is to be seen of a port. */
void uxdp_dpdk_observe(struct uxdp_dpdk_port *port)
{
	struct uxdp_dpdk_state *state = port->state;
	struct rte_eth_link link = {0};
	struct rte_eth_stats stats = {0};

	if (rte_eth_link_get_nowait(port->port_id, &link) == 0) {
		state->link_up = link.link_status;
		state->link_mbps = link.link_speed;
		state->link_full_duplex = link.link_duplex;
	}
	if (rte_eth_stats_get(port->port_id, &stats) == 0) {
		state->rx_frames = stats.ipackets;
		state->tx_frames = stats.opackets;
		state->rx_bytes = stats.ibytes;
		state->tx_bytes = stats.obytes;
		state->rx_missed = stats.imissed;
		state->rx_errors = stats.ierrors;
		state->tx_errors = stats.oerrors;
		state->rx_no_mbuf = stats.rx_nombuf;
	}
	state->mbufs_free = rte_mempool_avail_count(port->pool);
	observe_xstats(port);
	__atomic_fetch_add(&state->observed, 1, __ATOMIC_RELEASE);
}

/* What is in the queues: in those of a ring, frames that nobody has received yet. */
static void drop_leftovers(const struct uxdp_dpdk_port *port)
{
	struct rte_mbuf *mbufs[UXDP_DPDK_BURST];

	for (u32 queue = 0; queue < port->num_queues; queue++)
		for (u32 taken = 0; taken < UXDP_DPDK_LEFTOVERS;) {
			u32 n = rte_eth_rx_burst(port->port_id, queue, mbufs, UXDP_DPDK_BURST);

			if (!n)
				break;
			rte_pktmbuf_free_bulk(mbufs, n);
			taken += n;
		}
}

/* Give up all ports; no thread may use one any more. What is not free then is lost for good. */
void uxdp_dpdk_close(struct uxdp_dpdk_port *ports, u32 num_ports, void **rings, u32 num_rings)
{
	void *mbuf;

	for (u32 i = 0; i < num_rings; i++)
		while (rings[i] && !rte_ring_dequeue(rings[i], &mbuf))
			rte_pktmbuf_free(mbuf);
	for (u32 i = 0; i < num_ports; i++)
		if (ports[i].is_started) {
			uxdp_dpdk_observe(&ports[i]);
			drop_leftovers(&ports[i]);
			rte_eth_dev_stop(ports[i].port_id);
		}
	for (u32 i = 0; i < num_ports; i++)
		if (ports[i].is_open)
			rte_eth_dev_close(ports[i].port_id);
	for (u32 i = 0; i < num_ports; i++)
		if (ports[i].pool) {
			ports[i].state->mbufs_free = rte_mempool_avail_count(ports[i].pool);
			ports[i].state->closed = 1;
		}
}

#endif
