// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * flow_meter: count packets and bytes per flow, and tell when a flow appears or goes on.
 *
 * A flow is addresses, ports and protocol. Each CPU counts in its own copy of a flow's numbers, so
 * nothing is shared on the way; a reader adds the copies up. An event goes into the ring buffer
 * when a flow is seen first and, on each CPU, after every report_every packets of a flow.
 *
 * All frames pass. Metered are untagged IPv4 and IPv6; protocols without ports, and fragments and
 * IPv6 extension headers, behind which the ports are not found, count under port 0.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_FLOWS (1 << 20)
#define EVENT_RING_BYTES (1 << 22)

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* Packets of one flow on one CPU between two reports; 0: report new flows only. */
const volatile __u32 report_every = 1024;

struct flow {
	struct in6_addr src; /* IPv4 as ::ffff:a.b.c.d */
	struct in6_addr dst;
	__be16 src_port;
	__be16 dst_port;
	__u8 proto;
	__u8 zero[3];
};

struct flow_stats {
	__u64 packets;
	__u64 bytes; /* of the IP packets */
	__u64 first_seen_ns;
	__u64 last_seen_ns;
};

enum event_kind {
	EVENT_NEW_FLOW,
	EVENT_REPORT,
};

struct event {
	__u32 kind; /* enum event_kind */
	__u32 cpu;
	struct flow flow;
	struct flow_stats stats; /* of that CPU */
};

enum counter {
	COUNTER_METERED,
	COUNTER_NOT_IP,
	COUNTER_MALFORMED,
	COUNTER_TABLE_FULL, /* packets of flows that found no room */
	COUNTER_LOST_EVENTS,
	NUM_COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* few links carry a million flows: pay per flow */
	__type(key, struct flow);
	__type(value, struct flow_stats);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_RING_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		++*counter;
}

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE ||
	       proto == IPPROTO_SCTP || proto == IPPROTO_DCCP;
}

/* In all these protocols the header begins with the source port and the destination port. */
static __always_inline bool parse_ports(__be16 *ports, void *data_end, __u32 len, struct flow *flow)
{
	if ((void *)(ports + 2) > data_end || len < 2 * sizeof(*ports))
		return false;
	flow->src_port = ports[0];
	flow->dst_port = ports[1];
	return true;
}

/* These return the length of the IP packet, or 0 if it is malformed. */
static __always_inline __u32 parse_ipv4(struct iphdr *ip, void *data_end, struct flow *flow)
{
	__u32 header_len, len;

	if ((void *)(ip + 1) > data_end || ip->version != 4)
		return 0;
	header_len = ip->ihl * 4;
	len = bpf_ntohs(ip->tot_len);
	if (header_len < sizeof(*ip) || len < header_len || len > data_end - (void *)ip)
		return 0;

	flow->src.s6_addr16[5] = 0xffff;
	flow->src.s6_addr32[3] = ip->saddr;
	flow->dst.s6_addr16[5] = 0xffff;
	flow->dst.s6_addr32[3] = ip->daddr;
	flow->proto = ip->protocol;
	if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET) || !has_ports(ip->protocol))
		return len;
	return parse_ports((void *)ip + header_len, data_end, len - header_len, flow) ? len : 0;
}

static __always_inline __u32 parse_ipv6(struct ipv6hdr *ip, void *data_end, struct flow *flow)
{
	__u32 payload_len;

	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return 0;
	payload_len = bpf_ntohs(ip->payload_len);
	if (payload_len > data_end - (void *)(ip + 1))
		return 0;

	flow->src = ip->saddr;
	flow->dst = ip->daddr;
	flow->proto = ip->nexthdr;
	if (has_ports(ip->nexthdr) && !parse_ports((void *)(ip + 1), data_end, payload_len, flow))
		return 0;
	return sizeof(*ip) + payload_len;
}

static __always_inline void emit(__u32 kind, const struct flow *flow,
				 const struct flow_stats *stats)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(COUNTER_LOST_EVENTS);
		return;
	}
	event->kind = kind;
	event->cpu = bpf_get_smp_processor_id();
	event->flow = *flow;
	event->stats = *stats;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline void meter(const struct flow *flow, __u32 len)
{
	__u64 now = bpf_ktime_get_ns();
	struct flow_stats *stats = bpf_map_lookup_elem(&flows, flow);
	bool is_new = false;

	if (!stats) {
		struct flow_stats none = {};

		/* Another CPU may be first; then its element is the one to find. */
		is_new = !bpf_map_update_elem(&flows, flow, &none, BPF_NOEXIST);
		stats = bpf_map_lookup_elem(&flows, flow);
		if (!stats) {
			count(COUNTER_TABLE_FULL);
			return;
		}
	}

	if (!stats->packets)
		stats->first_seen_ns = now;
	stats->last_seen_ns = now;
	stats->packets++;
	stats->bytes += len;
	count(COUNTER_METERED);

	if (is_new)
		emit(EVENT_NEW_FLOW, flow, stats);
	else if (report_every && stats->packets % report_every == 0)
		emit(EVENT_REPORT, flow, stats);
}

SEC("xdp")
int flow_meter(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct flow flow = {};
	__u32 len;

	if ((void *)(eth + 1) > data_end)
		return XDP_PASS;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		len = parse_ipv4((void *)(eth + 1), data_end, &flow);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		len = parse_ipv6((void *)(eth + 1), data_end, &flow);
	} else {
		count(COUNTER_NOT_IP);
		return XDP_PASS;
	}

	if (len)
		meter(&flow, len);
	else
		count(COUNTER_MALFORMED);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
