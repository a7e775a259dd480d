// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * nat64: lets clients that have only IPv6 reach servers that have only IPv4 (RFC 6146, RFC 7915).
 *
 * A client sends to the server's IPv4 address behind the translation prefix (64:ff9b::/96, RFC
 * 6052). Its address and port, or the identifier of its echo request, are bound to a port of one of
 * the public addresses in pool; answers to that port are translated back. Bindings do not depend on
 * the server (endpoint-independent mapping, RFC 4787), so peers can call through them.
 *
 * TCP, UDP and echo are translated. Checksums are updated incrementally (RFC 1624), except where a
 * UDP datagram over IPv4 has none: there it is computed, because IPv6 demands one. Dropped are
 * packets with IPv4 options, IPv6 extension headers or fragments, and those that do not fit the
 * MTU. All else that is not for the translator is passed to the host.
 *
 * IPv4 is on port 0 of the devmap and IPv6 on port 1; if there is one interface alone, leave the
 * map empty, and translated packets go out where they came from, to the MAC that they came from.
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

#define MAX_BINDINGS (1 << 16)
#define MAX_POOL 256
#define MAX_PROBES 8

#define FIRST_PORT 1024
#define NUM_PORTS (65536 - FIRST_PORT)

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define HEADER_GROWTH ((int)sizeof(struct ipv6hdr) - (int)sizeof(struct iphdr))
#define MAX_UDP_BYTES 1500
#define CHUNK_BYTES 64

/* The first 96 bits of addresses that stand for IPv4 addresses: 64:ff9b:: */
const volatile __be32 prefix[3] = {bpf_htonl(0x0064ff9b), 0, 0};
/* How many elements of pool are in use. */
const volatile __u32 pool_size = 1;
const volatile __u32 mtu = 1500;

enum port {
	PORT_IPV4,
	PORT_IPV6,
	NUM_PORTS_IN_MAP,
};

enum counter {
	TRANSLATED_TO_IPV4,
	TRANSLATED_TO_IPV6,
	BINDINGS_MADE,
	BINDINGS_REFUSED, /* no free port was found */
	NO_BINDING,
	HOPS_USED_UP,
	UNSUPPORTED,
	TOO_BIG,
	MALFORMED,
	NUM_COUNTERS,
};

/* Who sends: the port in network order, or the identifier of an echo. */
struct endpoint6 {
	struct in6_addr addr;
	__be16 port;
	__u8 proto; /* as in IPv4 */
	__u8 zero;
};

struct endpoint4 {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 zero;
};

struct binding {
	struct endpoint4 outside;
	__u64 last_seen_ns; /* for whoever removes old bindings */
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_POOL);
	__type(key, __u32);
	__type(value, __be32);
} pool SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_BINDINGS);
	__type(key, struct endpoint6);
	__type(value, struct binding);
} bindings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_BINDINGS);
	__type(key, struct endpoint4);
	__type(value, struct endpoint6);
} outside SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, NUM_PORTS_IN_MAP);
	__type(key, __u32); /* enum port */
	__type(value, __u32);
} ports SEC(".maps");

/* What is known of a packet once its transport header was read. */
struct segment {
	__u8 proto;	  /* as in IPv4 */
	bool is_request;  /* ICMP */
	bool no_checksum; /* UDP over IPv4 */
	__be16 source;
	__be16 dest;
};

static __always_inline int count(enum counter which, int verdict)
{
	__u32 key = which;
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

/* Read the transport header; an error is the counter of what is wrong. */
static __always_inline int parse_segment(void *l4, void *data_end, __u8 nexthdr, bool is_ipv6,
					 __u32 len, struct segment *segment)
{
	if (nexthdr == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;

		if ((void *)(tcp + 1) > data_end || len < sizeof(*tcp))
			return -MALFORMED;
		segment->source = tcp->source;
		segment->dest = tcp->dest;
	} else if (nexthdr == IPPROTO_UDP) {
		struct udphdr *udp = l4;

		if ((void *)(udp + 1) > data_end || len < sizeof(*udp))
			return -MALFORMED;
		if (bpf_ntohs(udp->len) != len || (is_ipv6 && !udp->check))
			return -MALFORMED;
		segment->source = udp->source;
		segment->dest = udp->dest;
		segment->no_checksum = !udp->check;
	} else if (nexthdr == (is_ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		struct icmphdr *icmp = l4;
		__u8 request = is_ipv6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO;
		__u8 reply = is_ipv6 ? ICMPV6_ECHO_REPLY : ICMP_ECHOREPLY;

		if ((void *)(icmp + 1) > data_end || len < sizeof(*icmp))
			return -MALFORMED;
		if (icmp->code || (icmp->type != request && icmp->type != reply))
			return -UNSUPPORTED;
		segment->is_request = icmp->type == request;
		segment->source = icmp->un.echo.id;
		segment->dest = icmp->un.echo.id;
		nexthdr = IPPROTO_ICMP;
	} else {
		return -UNSUPPORTED;
	}
	segment->proto = nexthdr;
	return 0;
}

static __always_inline __u32 hash_endpoint(const struct endpoint6 *endpoint)
{
	__u32 hash = (__u32)endpoint->port << 8 | endpoint->proto;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		hash = (hash ^ endpoint->addr.in6_u.u6_addr32[i]) * 0x85ebca6b;
		hash ^= hash >> 15;
	}
	return hash;
}

/*
 * Bind a client to the first free of a few ports that its hash leads to. Whoever else is given the
 * same port at the same moment loses, because the map of outside endpoints takes each once.
 */
static __noinline int bind_client(const struct endpoint6 *client, struct binding *binding)
{
	__u32 size = pool_size > MAX_POOL ? MAX_POOL : pool_size;
	struct endpoint6 inside;
	__u32 hash, index;
	__be32 *addr;

	if (!client || !binding || !size)
		return -1;
	inside = *client;
	hash = hash_endpoint(&inside);
	index = hash % size;
	addr = bpf_map_lookup_elem(&pool, &index);
	if (!addr || !*addr)
		return -1;
	for (__u32 probe = 0; probe < MAX_PROBES; probe++) {
		struct endpoint4 candidate = {
		    .addr = *addr,
		    .port = bpf_htons(FIRST_PORT + (hash / size + probe * 7919) % NUM_PORTS),
		    .proto = inside.proto,
		};

		if (bpf_map_update_elem(&outside, &candidate, &inside, BPF_NOEXIST))
			continue;
		binding->outside = candidate;
		binding->last_seen_ns = bpf_ktime_get_ns();
		binding->packets = 1;
		if (!bpf_map_update_elem(&bindings, &inside, binding, BPF_NOEXIST))
			return 0;
		bpf_map_delete_elem(&outside, &candidate);
		return -1;
	}
	return -1;
}

/* Send out of the other side; without a port for it, back to where the frame came from. */
static __always_inline int forward(struct ethhdr *eth, const struct ethhdr *from, enum port port)
{
	__builtin_memcpy(eth->h_dest, from->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, from->h_dest, ETH_ALEN);
	return bpf_redirect_map(&ports, port, XDP_TX);
}

/* Where the checksum of a segment is, or NULL. */
static __always_inline __sum16 *checksum_place(void *l4, void *data_end, __u8 proto)
{
	struct icmphdr *icmp = l4;
	struct tcphdr *tcp = l4;
	struct udphdr *udp = l4;

	if (proto == IPPROTO_TCP)
		return (void *)(tcp + 1) > data_end ? NULL : &tcp->check;
	if (proto == IPPROTO_UDP)
		return (void *)(udp + 1) > data_end ? NULL : &udp->check;
	return (void *)(icmp + 1) > data_end ? NULL : &icmp->checksum;
}

static __always_inline int to_ipv4(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data, from;
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct endpoint6 client = {};
	struct segment segment = {};
	struct binding fresh = {}, *binding;
	struct endpoint4 source;
	__be32 before[10], after[4];
	struct iphdr *ip;
	__u8 hop_limit, traffic_class;
	__sum16 *check;
	__be32 server;
	__u32 len, size;
	void *l4;
	int error;

	if ((void *)(ip6 + 1) > data_end || ip6->version != 6)
		return count(MALFORMED, XDP_DROP);
	if (ip6->daddr.in6_u.u6_addr32[0] != prefix[0] ||
	    ip6->daddr.in6_u.u6_addr32[1] != prefix[1] ||
	    ip6->daddr.in6_u.u6_addr32[2] != prefix[2])
		return XDP_PASS;
	len = bpf_ntohs(ip6->payload_len);
	if (len > data_end - (void *)(ip6 + 1))
		return count(MALFORMED, XDP_DROP);
	hop_limit = ip6->hop_limit;
	if (hop_limit <= 1)
		return count(HOPS_USED_UP, XDP_DROP);
	error = parse_segment(ip6 + 1, data_end, ip6->nexthdr, true, len, &segment);
	if (error)
		return count(-error, XDP_DROP);
	if (segment.proto == IPPROTO_ICMP && !segment.is_request)
		return count(UNSUPPORTED, XDP_DROP);

	client.addr = ip6->saddr;
	client.port = segment.source;
	client.proto = segment.proto;
	binding = bpf_map_lookup_elem(&bindings, &client);
	if (binding) {
		binding->last_seen_ns = bpf_ktime_get_ns();
		__sync_fetch_and_add(&binding->packets, 1);
	} else {
		if (bind_client(&client, &fresh))
			return count(BINDINGS_REFUSED, XDP_DROP);
		count(BINDINGS_MADE, 0);
		binding = &fresh;
	}
	source = binding->outside;
	server = ip6->daddr.in6_u.u6_addr32[3];
	traffic_class = ip6->priority << 4 | ip6->flow_lbl[0] >> 4;

	/* What the checksum covers now and then: addresses, length and protocol, and the port. */
	__builtin_memcpy(before, &ip6->saddr, 32);
	before[8] = segment.source;
	before[9] = 0;
	after[0] = source.addr;
	after[1] = server;
	after[2] = source.port;
	after[3] = 0;
	size = sizeof(after);
	if (segment.proto == IPPROTO_ICMP) {
		/* ICMP has no pseudo-header, and another number for the same message. */
		before[9] = bpf_htonl(len + IPPROTO_ICMPV6 + (ICMPV6_ECHO_REQUEST << 8));
		after[0] = bpf_htonl(ICMP_ECHO << 8);
		after[1] = 0;
	}
	from = *eth;

	if (bpf_xdp_adjust_head(ctx, HEADER_GROWTH))
		return XDP_ABORTED;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	ip = (void *)(eth + 1);
	l4 = ip + 1;
	if (l4 + sizeof(struct udphdr) > data_end)
		return XDP_ABORTED;
	eth->h_proto = bpf_htons(ETH_P_IP);
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = traffic_class;
	ip->tot_len = bpf_htons(len + sizeof(*ip));
	ip->id = 0; /* allowed for what is never fragmented (RFC 6864) */
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = hop_limit - 1;
	ip->protocol = segment.proto;
	ip->check = 0;
	ip->saddr = source.addr;
	ip->daddr = server;
	ip->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));

	check = checksum_place(l4, data_end, segment.proto);
	if (!check)
		return XDP_ABORTED;
	*check = csum_fold(bpf_csum_diff(before, sizeof(before), after, size, (__u16) ~*check));
	if (segment.proto == IPPROTO_ICMP) {
		struct icmphdr *icmp = l4;

		icmp->type = ICMP_ECHO;
		icmp->un.echo.id = source.port;
	} else {
		/* TCP and UDP begin alike. */
		((struct udphdr *)l4)->source = source.port;
		if (segment.proto == IPPROTO_UDP && !*check)
			*check = 0xffff;
	}
	count(TRANSLATED_TO_IPV4, 0);
	return forward(eth, &from, PORT_IPV4);
}

/* The sum over a datagram that begins behind the IPv6 header, its length taken modulo the chunks.
 */
static __noinline int csum_of_datagram(struct xdp_md *ctx, __u32 len)
{
	__u32 offset = sizeof(struct ethhdr) + sizeof(struct ipv6hdr), sum = 0;

	if (len > MAX_UDP_BYTES)
		return -1;
	for (int i = 0; i < MAX_UDP_BYTES / CHUNK_BYTES + 1; i++) {
		__u8 chunk[CHUNK_BYTES] = {};
		__u32 bytes = len < CHUNK_BYTES ? len : CHUNK_BYTES;

		if (bytes < 1 || bytes > CHUNK_BYTES)
			break;
		if (bpf_xdp_load_bytes(ctx, offset, chunk, bytes))
			return -1;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)chunk, sizeof(chunk), sum);
		offset += bytes;
		len -= bytes;
	}
	return (__u16)~csum_fold(sum);
}

static __always_inline int to_ipv6(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data, from;
	struct iphdr *ip = (void *)(eth + 1);
	struct endpoint4 target = {};
	struct endpoint6 client, *inside;
	struct segment segment = {};
	struct binding *binding;
	__be32 before[4], after[10];
	struct in6_addr server;
	struct ipv6hdr *ip6;
	__u8 ttl, tos;
	__sum16 *check;
	__u32 len;
	void *l4;
	int error, sum;

	if ((void *)(ip + 1) > data_end || ip->version != 4)
		return count(MALFORMED, XDP_DROP);
	target.addr = ip->daddr;
	len = bpf_ntohs(ip->tot_len);
	if (len < sizeof(*ip) || len > data_end - (void *)ip)
		return count(MALFORMED, XDP_DROP);
	len -= sizeof(*ip);
	/* Whether the address is ours is told by the binding; so nobody else's packet is dropped
	 * here. */
	if (ip->ihl != sizeof(*ip) / 4 || ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return XDP_PASS;
	error = parse_segment(ip + 1, data_end, ip->protocol, false, len, &segment);
	if (error == -UNSUPPORTED)
		return XDP_PASS;
	if (error)
		return count(-error, XDP_DROP);
	if (segment.proto == IPPROTO_ICMP && segment.is_request)
		return XDP_PASS;
	target.port = segment.dest;
	target.proto = segment.proto;
	inside = bpf_map_lookup_elem(&outside, &target);
	if (!inside)
		return count(NO_BINDING, XDP_PASS);
	client = *inside;
	ttl = ip->ttl;
	tos = ip->tos;
	if (ttl <= 1)
		return count(HOPS_USED_UP, XDP_DROP);
	if (len + sizeof(*ip6) > mtu)
		return count(TOO_BIG, XDP_DROP);
	binding = bpf_map_lookup_elem(&bindings, &client);
	if (binding) {
		binding->last_seen_ns = bpf_ktime_get_ns();
		__sync_fetch_and_add(&binding->packets, 1);
	}

	server.in6_u.u6_addr32[0] = prefix[0];
	server.in6_u.u6_addr32[1] = prefix[1];
	server.in6_u.u6_addr32[2] = prefix[2];
	server.in6_u.u6_addr32[3] = ip->saddr;
	before[0] = ip->saddr;
	before[1] = ip->daddr;
	before[2] = segment.dest;
	before[3] = 0;
	__builtin_memcpy(after, &server, 16);
	__builtin_memcpy(after + 4, &client.addr, 16);
	after[8] = client.port;
	after[9] = 0;
	if (segment.proto == IPPROTO_ICMP) {
		before[0] = bpf_htonl(ICMP_ECHOREPLY << 8);
		before[1] = 0;
		after[9] = bpf_htonl(len + IPPROTO_ICMPV6 + (ICMPV6_ECHO_REPLY << 8));
	} else if (segment.no_checksum) {
		/* The port is covered by the sum over the datagram. */
		after[8] = 0;
		after[9] = bpf_htonl(len + IPPROTO_UDP);
	}
	from = *eth;

	if (bpf_xdp_adjust_head(ctx, -HEADER_GROWTH))
		return XDP_ABORTED;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	ip6 = (void *)(eth + 1);
	l4 = ip6 + 1;
	if (l4 + sizeof(struct udphdr) > data_end)
		return XDP_ABORTED;
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	ip6->version = 6;
	ip6->priority = tos >> 4;
	ip6->flow_lbl[0] = tos << 4;
	ip6->flow_lbl[1] = 0;
	ip6->flow_lbl[2] = 0;
	ip6->payload_len = bpf_htons(len);
	ip6->nexthdr = segment.proto == IPPROTO_ICMP ? IPPROTO_ICMPV6 : segment.proto;
	ip6->hop_limit = ttl - 1;
	ip6->saddr = server;
	ip6->daddr = client.addr;

	if (segment.proto == IPPROTO_ICMP) {
		struct icmphdr *icmp = l4;

		icmp->type = ICMPV6_ECHO_REPLY;
		icmp->un.echo.id = client.port;
	} else {
		((struct udphdr *)l4)->dest = client.port;
	}
	if (segment.no_checksum) {
		sum = csum_of_datagram(ctx, len);
		if (sum < 0)
			return count(TOO_BIG, XDP_DROP);
		data_end = (void *)(long)ctx->data_end;
		l4 = (void *)(long)ctx->data + sizeof(struct ethhdr) + sizeof(struct ipv6hdr);
		sum = csum_fold(bpf_csum_diff(NULL, 0, after, sizeof(after), sum));
	} else {
		check = checksum_place(l4, data_end, segment.proto);
		if (!check)
			return XDP_ABORTED;
		sum = csum_fold(
		    bpf_csum_diff(before, sizeof(before), after, sizeof(after), (__u16) ~*check));
	}
	check = checksum_place(l4, data_end, segment.proto);
	if (!check)
		return XDP_ABORTED;
	*check = segment.proto == IPPROTO_UDP && !sum ? 0xffff : sum;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > data_end)
		return XDP_ABORTED;
	count(TRANSLATED_TO_IPV6, 0);
	return forward(eth, &from, PORT_IPV6);
}

SEC("xdp")
int nat64(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > data_end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return to_ipv4(ctx);
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return to_ipv6(ctx);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
