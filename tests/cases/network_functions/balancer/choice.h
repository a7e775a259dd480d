/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Which real a packet goes to. */
#ifndef CHOICE_H
#define CHOICE_H

#include "packet.h"

/* Whether new connections come too fast to be remembered. */
static __always_inline bool is_flood(void)
{
	__u64 window = bpf_ktime_get_ns() / flood_window_ns;
	struct flood *flood;
	__u32 zero = 0;

	flood = bpf_map_lookup_elem(&floods, &zero);
	if (!flood)
		return true;
	if (flood->window != window) {
		flood->window = window;
		flood->connections = 0;
	}
	return ++flood->connections > max_new;
}

static __always_inline struct real *real_at(__u32 index)
{
	struct real *real = bpf_map_lookup_elem(&reals, &index);

	return real && real->dst ? real : NULL;
}

/* The real that a connection identifier names: index, or 0. Clients choose those of long headers of
 * types Initial and 0-RTT (RFC 9000, 17.2), which name nobody. */
static __always_inline __u32 real_of_quic(void *l4, void *data_end)
{
	__u8 *quic = l4 + sizeof(struct udphdr), *id;
	__u32 server, *real;

	if ((void *)(quic + 1) > data_end)
		return 0;
	if (*quic & 0x80) {
		if ((void *)(quic + 9) > data_end)
			return 0;
		if ((*quic & 0x30) < 0x20 || quic[5] < 3)
			return count(QUIC_NOT_NAMED, 0);
		id = quic + 6;
	} else {
		if ((void *)(quic + 4) > data_end)
			return 0;
		id = quic + 1;
	}
	if ((id[0] & 0xe0) != quic_config)
		return count(QUIC_NOT_NAMED, 0);
	server = id[1] << 8 | id[2];
	real = bpf_map_lookup_elem(&server_ids, &server);
	if (!real || !*real)
		return count(QUIC_UNKNOWN, 0);
	count(QUIC_NAMED, 0);
	return *real;
}

static __always_inline __u32 real_of_source(const struct flow *flow, bool is_ipv6)
{
	__u32 *index;

	if (is_ipv6) {
		struct prefix6 key = {.bits = 128};

		__builtin_memcpy(key.addr, flow->srcv6, sizeof(key.addr));
		index = bpf_map_lookup_elem(&source_routes6, &key);
	} else {
		struct prefix4 key = {.bits = 32, .addr = flow->src};

		index = bpf_map_lookup_elem(&source_routes4, &key);
	}
	if (!index)
		return 0;
	count(SOURCE_ROUTED, 0);
	return *index;
}

/* The real that a connection has, or 0. */
static __always_inline __u32 real_of_table(void *table, struct packet *packet)
{
	struct remembered *known = bpf_map_lookup_elem(table, &packet->flow);
	__u64 now;

	if (!known)
		return count(TABLE_MISS, 0);
	if (packet->flow.proto == IPPROTO_UDP) {
		now = bpf_ktime_get_ns();
		if (now - known->last_seen_ns > udp_timeout_ns)
			return count(TABLE_EXPIRED, 0);
		known->last_seen_ns = now;
	}
	count(TABLE_HIT, 0);
	return known->real;
}

static __always_inline __u32 real_of_ring(const struct flow *flow, const struct vip *vip,
					  bool is_ipv6)
{
	__u32 slot = vip->number * RING_SIZE + hash_flow(flow, vip->flags, is_ipv6) % RING_SIZE;
	__u32 *index = bpf_map_lookup_elem(&rings, &slot);

	return index ? *index : 0;
}

/* The real for a packet, and its index; NULL if there is none in service. */
static __always_inline struct real *choose_real(struct packet *packet, struct vip *vip, void *l4,
						void *data_end, bool is_ipv6, __u32 *chosen)
{
	__u32 cpu = bpf_get_smp_processor_id(), index = 0;
	bool is_quoted = packet->flags & PACKET_QUOTED;
	struct remembered fresh = {};
	struct real *real;
	void *table;

	if (vip->flags & VIP_QUIC && !is_quoted)
		index = real_of_quic(l4, data_end);
	if (!index && vip->flags & VIP_SOURCE_ROUTING && !is_quoted)
		index = real_of_source(&packet->flow, is_ipv6);
	if (index) {
		real = real_at(index);
		*chosen = index;
		if (real)
			return real;
	}
	if (vip->flags & VIP_NO_TABLE) {
		*chosen = real_of_ring(&packet->flow, vip, is_ipv6);
		return real_at(*chosen);
	}

	table = bpf_map_lookup_elem(&tables, &cpu);
	if (!table) {
		table = &shared_table;
		count(SHARED_TABLE, 0);
	}
	if (!(packet->flags & PACKET_SYN)) {
		index = real_of_table(table, packet);
		real = index ? real_at(index) : NULL;
		*chosen = index;
		if (real)
			return real;
	}
	index = real_of_ring(&packet->flow, vip, is_ipv6);
	real = real_at(index);
	*chosen = index;
	if (!real || is_quoted)
		return real;
	if (is_flood()) {
		count(NOT_REMEMBERED, 0);
		return real;
	}
	fresh.real = index;
	if (packet->flow.proto == IPPROTO_UDP)
		fresh.last_seen_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(table, &packet->flow, &fresh, BPF_ANY);
	return real;
}

#endif
