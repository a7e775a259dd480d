// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * filter: a stateful packet filter with an ordered list of rules, for the interface of a host.
 *
 * The first rule that matches decides: allow, deny, reject (a RST to whoever sent TCP), or allow so
 * many packets per window of time. What was allowed once is a connection, whose later packets in
 * both directions need no rule, and neither do ICMP errors about them. TCP connections have to
 * begin with a SYN. Connections that are not used get evicted (LRU).
 *
 * The control plane fills the half of the rules that is not active and then switches over, by one
 * store to generation; connections that were allowed before stay.
 *
 * Rules are for IPv4 and IPv6 alike: an IPv4 address is ::ffff:a.b.c.d. IPv6 extension headers are
 * skipped. It fails closed: what cannot be read or is a fragment without ports is dropped.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_RULES 4096
#define MAX_CONNECTIONS (1 << 18)
#define MAX_VLAN_TAGS 2
#define MAX_EXTENSIONS 6

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define IP6_OFFSET 0xfff8

#define TCP_FLAGS_AT 13 /* in the TCP header */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum action {
	ACTION_DENY,
	ACTION_ALLOW,
	ACTION_REJECT,
	ACTION_LIMIT,
};

enum reason {
	REASON_RULE_ALLOWS,
	REASON_RULE_DENIES,
	REASON_RULE_REJECTS,
	REASON_WITHIN_LIMIT,
	REASON_OVER_LIMIT,
	REASON_ESTABLISHED,
	REASON_RELATED,
	REASON_NO_RULE,
	REASON_NOT_A_BEGINNING, /* TCP without a connection and without a SYN */
	REASON_NOT_IP,
	REASON_FRAGMENT,
	REASON_MALFORMED,
	NUM_REASONS,
};

enum state {
	STATE_NEW,
	STATE_ANSWERED,
	STATE_CLOSING,
};

/* What happens to packets without a rule, and to frames that are no IP. */
const volatile __u32 default_action = ACTION_DENY;
const volatile __u32 not_ip_allowed = 1;
/* In how long as many packets as a rule's limit may pass. */
const volatile __u64 limit_window_ns = 1000000000ULL;

/* Which half of the rules is active, and how many rules are in each. */
__u32 generation = 0;
__u32 num_rules[2] = {};

struct address {
	__be32 words[4];
};

struct flow {
	struct address source;
	struct address dest;
	__be16 source_port; /* of an echo: its identifier, twice */
	__be16 dest_port;
	__u8 proto;
	__u8 zero[3];
};

struct rule {
	struct address source;
	struct address source_mask;
	struct address dest;
	struct address dest_mask;
	__u16 source_ports[2]; /* from, to */
	__u16 dest_ports[2];
	__u8 proto; /* 0: all */
	__u8 action;
	__u8 reports;
	__u8 zero;
	__u32 limit;
};

struct rule_stats {
	__u64 packets;
	__u64 bytes;
};

struct window {
	__u64 number;
	__u64 packets;
};

struct connection {
	__u64 last_seen_ns;
	__u32 packets[2]; /* as it began, and back */
	__u8 state;
	__u8 zero[7];
};

/* For those who watch: what a rule that reports has matched. */
struct report {
	struct flow flow;
	__u32 rule;
	__u32 len;
	__u8 action;
	__u8 reason;
	__u16 vlan;
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * MAX_RULES);
	__type(key, __u32);
	__type(value, struct rule_stats);
} rule_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_RULES);
	__type(key, __u32);
	__type(value, struct window);
} windows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, struct flow);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} reports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_REASONS);
	__type(key, __u32); /* enum reason */
	__type(value, __u64);
} counters SEC(".maps");

/* What was read of a packet. Offsets are from the beginning of the frame. */
struct packet {
	struct flow flow;
	__u32 l3;
	__u32 l4;
	__u32 len;
	__u16 vlan;
	__u8 tcp_flags;
	bool is_error; /* ICMP, about another packet */
	bool is_ipv6;
	bool is_fragment; /* other than the first: there is no transport header */
};

static __always_inline int count(enum reason reason, int verdict)
{
	__u32 key = reason;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	if (counter)
		(*counter)++;
	return verdict;
}

static __always_inline __sum16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void map_ipv4(struct address *address, __be32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xffff);
	address->words[3] = ipv4;
}

/* One IPv6 extension header: where the next one is, and what. */
struct walk {
	struct xdp_md *ctx;
	__u32 offset;
	__u8 nexthdr;
	bool is_done;
	bool is_fragment;
	bool is_broken;
};

static long skip_extension(__u32 index, struct walk *walk)
{
	struct {
		__u8 nexthdr;
		__u8 len;
		__be16 offset;
		__be32 rest;
	} header;

	switch (walk->nexthdr) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_FRAGMENT:
		break;
	default:
		walk->is_done = true;
		return 1;
	}
	if (bpf_xdp_load_bytes(walk->ctx, walk->offset, &header, sizeof(header))) {
		walk->is_broken = true;
		return 1;
	}
	if (walk->nexthdr == IPPROTO_FRAGMENT) {
		walk->offset += sizeof(header);
		if (header.offset & bpf_htons(IP6_OFFSET)) {
			walk->is_fragment = true;
			return 1;
		}
	} else {
		walk->offset += (header.len + 1) * 8;
	}
	walk->nexthdr = header.nexthdr;
	return 0;
}

/* Read the addresses and the protocol of an IP packet at l3; 0, or the reason why it cannot be. */
static __noinline int read_addresses(struct xdp_md *ctx, struct packet *packet)
{
	struct walk walk = {.ctx = ctx};

	if (!packet)
		return -REASON_MALFORMED;
	if (packet->is_ipv6) {
		struct ipv6hdr ip6;

		if (bpf_xdp_load_bytes(ctx, packet->l3, &ip6, sizeof(ip6)) || ip6.version != 6)
			return -REASON_MALFORMED;
		__builtin_memcpy(&packet->flow.source, &ip6.saddr, sizeof(struct address));
		__builtin_memcpy(&packet->flow.dest, &ip6.daddr, sizeof(struct address));
		walk.offset = packet->l3 + sizeof(ip6);
		walk.nexthdr = ip6.nexthdr;
		if (bpf_loop(MAX_EXTENSIONS, skip_extension, &walk, 0) < 0)
			return -REASON_MALFORMED;
		if (walk.is_broken || (!walk.is_done && !walk.is_fragment))
			return -REASON_MALFORMED;
		packet->flow.proto = walk.nexthdr;
		packet->l4 = walk.offset;
		packet->is_fragment = walk.is_fragment;
	} else {
		struct iphdr ip;

		if (bpf_xdp_load_bytes(ctx, packet->l3, &ip, sizeof(ip)) || ip.version != 4)
			return -REASON_MALFORMED;
		if (ip.ihl < 5 || bpf_ntohs(ip.tot_len) < ip.ihl * 4)
			return -REASON_MALFORMED;
		map_ipv4(&packet->flow.source, ip.saddr);
		map_ipv4(&packet->flow.dest, ip.daddr);
		packet->flow.proto = ip.protocol;
		packet->l4 = packet->l3 + ip.ihl * 4;
		packet->is_fragment = ip.frag_off & bpf_htons(IP_OFFSET);
	}
	return 0;
}

/* Read the ports, or what stands for them. Of an error's packet there may be eight bytes alone. */
static __noinline int read_ports(struct xdp_md *ctx, struct packet *packet)
{
	__u8 head[TCP_FLAGS_AT + 1] = {};
	__u32 bytes = 8;

	if (!packet)
		return -REASON_MALFORMED;
	if (packet->is_fragment)
		return -REASON_FRAGMENT;
	if (packet->flow.proto == IPPROTO_TCP && !packet->is_error)
		bytes = sizeof(head);
	if (bpf_xdp_load_bytes(ctx, packet->l4, head, bytes))
		return -REASON_MALFORMED;
	switch (packet->flow.proto) {
	case IPPROTO_TCP:
		packet->tcp_flags = head[TCP_FLAGS_AT];
		/* fallthrough */
	case IPPROTO_UDP:
		packet->flow.source_port = *(__be16 *)head;
		packet->flow.dest_port = *(__be16 *)(head + 2);
		return 0;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		break;
	default:
		return 0;
	}
	if (packet->is_ipv6 ? head[0] == ICMPV6_ECHO_REQUEST || head[0] == ICMPV6_ECHO_REPLY
			    : head[0] == ICMP_ECHO || head[0] == ICMP_ECHOREPLY) {
		packet->flow.source_port = *(__be16 *)(head + 4);
		packet->flow.dest_port = *(__be16 *)(head + 4);
		return 0;
	}
	if (packet->is_error)
		return -REASON_MALFORMED; /* an error about an error */
	if (packet->is_ipv6 ? head[0] <= ICMPV6_PARAMPROB
			    : head[0] == ICMP_DEST_UNREACH || head[0] == ICMP_TIME_EXCEEDED ||
				  head[0] == ICMP_PARAMETERPROB)
		packet->is_error = true;
	else
		packet->flow.dest_port = bpf_htons(head[0]); /* rules see the type as a port */
	return 0;
}

static __always_inline void turn(struct flow *flow)
{
	struct address address = flow->source;
	__be16 port = flow->source_port;

	flow->source = flow->dest;
	flow->dest = address;
	flow->source_port = flow->dest_port;
	flow->dest_port = port;
}

/* The connection that a flow belongs to, in which direction ever. */
static __always_inline struct connection *find_connection(struct flow *flow, __u32 *direction)
{
	struct connection *connection = bpf_map_lookup_elem(&connections, flow);

	*direction = 0;
	if (connection)
		return connection;
	turn(flow);
	connection = bpf_map_lookup_elem(&connections, flow);
	turn(flow);
	*direction = 1;
	return connection;
}

static __always_inline bool is_in(const struct address *address, const struct address *network,
				  const struct address *mask)
{
	__be32 difference = 0;

#pragma unroll
	for (int i = 0; i < 4; i++)
		difference |= (address->words[i] ^ network->words[i]) & mask->words[i];
	return !difference;
}

struct search {
	const struct packet *packet;
	__u32 first;
	__u32 found;
	bool is_found;
};

static long match_rule(__u32 index, struct search *search)
{
	const struct flow *flow = &search->packet->flow;
	__u32 key = search->first + index;
	__u16 source = bpf_ntohs(flow->source_port), dest = bpf_ntohs(flow->dest_port);
	struct rule *rule = bpf_map_lookup_elem(&rules, &key);

	if (!rule)
		return 1;
	if (rule->proto && rule->proto != flow->proto)
		return 0;
	if (source < rule->source_ports[0] || source > rule->source_ports[1] ||
	    dest < rule->dest_ports[0] || dest > rule->dest_ports[1])
		return 0;
	if (!is_in(&flow->source, &rule->source, &rule->source_mask) ||
	    !is_in(&flow->dest, &rule->dest, &rule->dest_mask))
		return 0;
	search->found = key;
	search->is_found = true;
	return 1;
}

/* Whether one more packet stays within a rule's limit. */
static __always_inline bool is_within(__u32 key, __u32 limit)
{
	struct window *window = bpf_map_lookup_elem(&windows, &key);
	__u64 number = bpf_ktime_get_ns() / limit_window_ns;

	if (!window)
		return false;
	/* Who begins a window late may take a few packets more than the limit. */
	if (window->number != number) {
		window->number = number;
		window->packets = 0;
	}
	return __sync_fetch_and_add(&window->packets, 1) < limit;
}

static __always_inline void tell(const struct packet *packet, __u32 rule, __u8 action,
				 enum reason reason)
{
	struct report *report = bpf_ringbuf_reserve(&reports, sizeof(*report), 0);

	if (!report)
		return;
	report->flow = packet->flow;
	report->rule = rule;
	report->len = packet->len;
	report->action = action;
	report->reason = reason;
	report->vlan = packet->vlan;
	report->zero = 0;
	bpf_ringbuf_submit(report, 0);
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
}

/*
 * Turn a TCP packet into the RST that answers it (RFC 9293, 3.10.7.1), without options. Only where
 * the packet is plain, without tags, options and extension headers; others are dropped.
 */
static __always_inline int reset(struct xdp_md *ctx, const struct packet *packet)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	__u32 ip_len = packet->is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	struct ethhdr *eth = data;
	struct tcphdr *tcp;
	__be32 seq, sum_over[10] = {};
	__be16 port;
	__u32 sum, len;

	if (packet->l3 != sizeof(*eth) || packet->l4 != sizeof(*eth) + ip_len)
		return XDP_DROP;
	if (packet->is_ipv6) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);
		struct in6_addr address;

		tcp = (void *)(ip6 + 1);
		if ((void *)(tcp + 1) > data_end)
			return XDP_DROP;
		len = bpf_ntohs(ip6->payload_len);
		address = ip6->saddr;
		ip6->saddr = ip6->daddr;
		ip6->daddr = address;
		ip6->hop_limit = 64;
		ip6->payload_len = bpf_htons(sizeof(*tcp));
		__builtin_memcpy(sum_over, &ip6->saddr, 32);
	} else {
		struct iphdr *ip = (void *)(eth + 1);
		__be32 address;

		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > data_end)
			return XDP_DROP;
		len = bpf_ntohs(ip->tot_len) - sizeof(*ip);
		address = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = address;
		ip->tos = 0;
		ip->ttl = 64;
		ip->frag_off = 0;
		ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*tcp));
		ip->check = 0;
		ip->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
		sum_over[0] = ip->saddr;
		sum_over[1] = ip->daddr;
	}
	swap_macs(eth);
	sum_over[8] = bpf_htonl(sizeof(*tcp));
	sum_over[9] = bpf_htonl(IPPROTO_TCP);

	seq = tcp->seq;
	len = len > tcp->doff * 4 ? len - tcp->doff * 4 : 0;
	len += tcp->syn + tcp->fin;
	port = tcp->source;
	tcp->source = tcp->dest;
	tcp->dest = port;
	if (tcp->ack) {
		tcp->seq = tcp->ack_seq;
		tcp->ack_seq = 0;
	} else {
		tcp->seq = 0;
		tcp->ack_seq = bpf_htonl(bpf_ntohl(seq) + len);
	}
	((__u8 *)tcp)[TCP_FLAGS_AT] = tcp->ack ? TCP_RST : TCP_RST | TCP_ACK;
	((__u8 *)tcp)[TCP_FLAGS_AT - 1] = sizeof(*tcp) / 4 << 4;
	tcp->window = 0;
	tcp->urg_ptr = 0;
	tcp->check = 0;
	sum = bpf_csum_diff(NULL, 0, sum_over, sizeof(sum_over), 0);
	tcp->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp), sum));

	len = sizeof(*eth) + ip_len + sizeof(*tcp);
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)packet->len))
		return XDP_DROP;
	return XDP_TX;
}

/* A packet of a known connection, in one of its directions. */
static __always_inline int follow(struct connection *connection, __u32 direction,
				  const struct packet *packet)
{
	connection->last_seen_ns = bpf_ktime_get_ns();
	if (direction)
		__sync_fetch_and_add(&connection->packets[1], 1);
	else
		__sync_fetch_and_add(&connection->packets[0], 1);
	if (packet->flow.proto == IPPROTO_TCP && packet->tcp_flags & (TCP_FIN | TCP_RST))
		connection->state = STATE_CLOSING;
	else if (direction && connection->state == STATE_NEW)
		connection->state = STATE_ANSWERED;
	return count(REASON_ESTABLISHED, XDP_PASS);
}

static __always_inline int judge(struct xdp_md *ctx, const struct packet *packet)
{
	__u32 half = generation & 1, index = half, key = 0, direction, length, action;
	struct search search = {.packet = packet};
	struct connection fresh = {}, *known;
	enum reason reason = REASON_NO_RULE;
	struct rule_stats *stats;
	struct rule *rule = NULL;
	struct flow flow = packet->flow;

	known = find_connection(&flow, &direction);
	/* A SYN begins anew where a connection has ended. */
	if (known && !(known->state == STATE_CLOSING && packet->tcp_flags == TCP_SYN))
		return follow(known, direction, packet);

	length = num_rules[index];
	search.first = half * MAX_RULES;
	if (length > MAX_RULES)
		length = MAX_RULES;
	if (bpf_loop(length, match_rule, &search, 0) < 0)
		return XDP_ABORTED;

	action = default_action;
	if (search.is_found) {
		key = search.found;
		rule = bpf_map_lookup_elem(&rules, &key);
		if (!rule)
			return XDP_ABORTED;
		action = rule->action;
		stats = bpf_map_lookup_elem(&rule_stats, &key);
		if (stats) {
			stats->packets++;
			stats->bytes += packet->len;
		}
		reason = action == ACTION_ALLOW	   ? REASON_RULE_ALLOWS
			 : action == ACTION_REJECT ? REASON_RULE_REJECTS
						   : REASON_RULE_DENIES;
		if (action == ACTION_LIMIT)
			reason =
			    is_within(key, rule->limit) ? REASON_WITHIN_LIMIT : REASON_OVER_LIMIT;
	}
	if ((action == ACTION_ALLOW || reason == REASON_WITHIN_LIMIT) &&
	    packet->flow.proto == IPPROTO_TCP &&
	    (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN) {
		action = ACTION_DENY;
		reason = REASON_NOT_A_BEGINNING;
	}
	if (rule && rule->reports)
		tell(packet, key, action, reason);
	count(reason, 0);
	if (action == ACTION_REJECT && packet->flow.proto == IPPROTO_TCP &&
	    !(packet->tcp_flags & TCP_RST))
		return reset(ctx, packet);
	if (action != ACTION_ALLOW && reason != REASON_WITHIN_LIMIT)
		return XDP_DROP;
	fresh.last_seen_ns = bpf_ktime_get_ns();
	fresh.packets[0] = 1;
	bpf_map_update_elem(&connections, &flow, &fresh, BPF_ANY);
	return XDP_PASS;
}

/* An ICMP error is allowed if the packet that it quotes belongs to a connection. */
static __always_inline int judge_error(struct xdp_md *ctx, const struct packet *packet)
{
	struct packet quoted = {};
	__u32 direction;
	int error;

	quoted.is_ipv6 = packet->is_ipv6;
	quoted.is_error = true;
	quoted.l3 = packet->l4 + sizeof(struct icmphdr);
	error = read_addresses(ctx, &quoted);
	if (!error)
		error = read_ports(ctx, &quoted);
	if (error)
		return count(-error, XDP_DROP);
	if (!find_connection(&quoted.flow, &direction))
		return count(REASON_NO_RULE, XDP_DROP);
	return count(REASON_RELATED, XDP_PASS);
}

SEC("xdp")
int filter(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct packet packet = {};
	__be16 proto;
	int error;

	if ((void *)(eth + 1) > data_end)
		return count(REASON_MALFORMED, XDP_DROP);
	proto = eth->h_proto;
	packet.l3 = sizeof(*eth);
	packet.len = data_end - data;
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		__be16 *tag = data + packet.l3;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > data_end)
			return count(REASON_MALFORMED, XDP_DROP);
		packet.vlan = bpf_ntohs(tag[0]) & 0xfff;
		proto = tag[1];
		packet.l3 += 4;
	}
	if (proto != bpf_htons(ETH_P_IP) && proto != bpf_htons(ETH_P_IPV6))
		return count(REASON_NOT_IP, not_ip_allowed ? XDP_PASS : XDP_DROP);
	packet.is_ipv6 = proto == bpf_htons(ETH_P_IPV6);

	error = read_addresses(ctx, &packet);
	if (!error)
		error = read_ports(ctx, &packet);
	if (error)
		return count(-error, XDP_DROP);
	if (packet.is_error)
		return judge_error(ctx, &packet);
	return judge(ctx, &packet);
}

char _license[] SEC("license") = "Dual MIT/GPL";
