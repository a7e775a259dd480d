// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * syn_proxy: answers SYNs with cookies, so that no forged SYN reaches a server's stack.
 *
 * The cookies are the kernel's own. So the ACK that brings one back can go to the stack, which then
 * has a connection: net.ipv4.tcp_syncookies must be 2, which means always, and the MSS and window
 * scale here must be the stack's. What SYN cookies cannot keep (window scale, SACK) is encoded in
 * the timestamp that the client echoes, as the stack does it.
 *
 * Segments of connections that were proven are passed; an ACK that is neither of one nor a valid
 * cookie is dropped. A port is guarded always, or while SYNs come faster than its limit: as long as
 * they do not, SYNs are passed, and so are ACKs. Sources in trusted are never asked to prove
 * anything.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_TCP_HEADER 60
#define MAX_OPTIONS (MAX_TCP_HEADER - 20)
#define MAX_CONNECTIONS (1 << 20)

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define TCPOPT_EOL 0
#define TCPOPT_NOP 1
#define TCPOPT_MSS 2
#define TCPOPT_WINDOW 3
#define TCPOPT_SACK_PERM 4
#define TCPOPT_TIMESTAMP 8

/* Of a timestamp that encodes what the client wants: 6 bits, as in net/ipv4/syncookies.c. */
#define TS_OPT_WSCALE_MASK 0xf
#define TS_OPT_SACK (1 << 4)
#define TS_OPT_ECN (1 << 5)
#define TSBITS 6
#define TSMASK ((1 << TSBITS) - 1)
#define NS_PER_TICK 1000000 /* TCP_TS_HZ: 1000 */

/* What the server's stack announces. */
const volatile __u16 mss4 = 1460;
const volatile __u16 mss6 = 1440;
const volatile __u8 window_scale = 7;
const volatile __u8 ttl = 64;
const volatile bool timestamps = true;
const volatile __u64 window_ns = 1000000000ULL;

enum counter {
	COOKIE_SENT,
	COOKIE_VALID,
	COOKIE_INVALID,
	KNOWN,
	BELOW_LIMIT,
	TRUSTED,
	NOT_GUARDED,
	CLOSED,
	BAD_FLAGS,
	FRAGMENT,
	MALFORMED,
	NUM_COUNTERS,
};

struct guard {
	__u32 max_syns; /* per window, until cookies are sent; 0: always */
	__u32 syns;
	__u64 window;
};

struct flow {
	struct in6_addr client; /* IPv4 as ::ffff:a.b.c.d */
	struct in6_addr server;
	__be16 client_port;
	__be16 server_port;
};

struct proven {
	__u64 since_ns;
	__u32 segments;
	__u32 closing;
};

struct prefix {
	__u32 bits;
	struct in6_addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u16); /* port, host order */
	__type(value, struct guard);
} guards SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, struct flow);
	__type(value, struct proven);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32);
} trusted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

/* The headers of a segment, copied: helpers want them whole, wherever the frame ends. */
struct segment {
	union {
		struct iphdr ip;
		struct ipv6hdr ip6;
	};
	union {
		struct tcphdr tcp;
		__u8 tcp_bytes[MAX_TCP_HEADER];
	};
	struct flow flow;
	__u32 tcp_len;
	bool is_ipv6;
};

/* What a SYN asks for. */
struct wishes {
	__u32 tsval;
	__u8 wscale; /* TS_OPT_WSCALE_MASK: none */
	bool has_timestamp;
	bool has_sack;
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

static __always_inline void map_ipv4(struct in6_addr *address, __be32 ipv4)
{
	address->in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	address->in6_u.u6_addr32[3] = ipv4;
}

/* Copy the headers of a TCP segment; a verdict if it is none, or -1. */
static __always_inline int read_segment(struct xdp_md *ctx, struct segment *segment)
{
	__u32 offset = sizeof(struct ethhdr), len;
	__be16 proto;

	if (bpf_xdp_load_bytes(ctx, offsetof(struct ethhdr, h_proto), &proto, sizeof(proto)))
		return XDP_PASS;
	if (proto == bpf_htons(ETH_P_IP)) {
		if (bpf_xdp_load_bytes(ctx, offset, &segment->ip, sizeof(segment->ip)))
			return count(MALFORMED, XDP_DROP);
		if (segment->ip.version != 4 || segment->ip.ihl < 5)
			return count(MALFORMED, XDP_DROP);
		if (segment->ip.protocol != IPPROTO_TCP)
			return count(NOT_GUARDED, XDP_PASS);
		if (segment->ip.frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return count(FRAGMENT, XDP_DROP);
		map_ipv4(&segment->flow.client, segment->ip.saddr);
		map_ipv4(&segment->flow.server, segment->ip.daddr);
		offset += segment->ip.ihl * 4;
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		if (bpf_xdp_load_bytes(ctx, offset, &segment->ip6, sizeof(segment->ip6)))
			return count(MALFORMED, XDP_DROP);
		if (segment->ip6.version != 6)
			return count(MALFORMED, XDP_DROP);
		if (segment->ip6.nexthdr == IPPROTO_FRAGMENT)
			return count(FRAGMENT, XDP_DROP);
		if (segment->ip6.nexthdr != IPPROTO_TCP)
			return count(NOT_GUARDED, XDP_PASS);
		segment->flow.client = segment->ip6.saddr;
		segment->flow.server = segment->ip6.daddr;
		segment->is_ipv6 = true;
		offset += sizeof(segment->ip6);
	} else {
		return count(NOT_GUARDED, XDP_PASS);
	}
	if (bpf_xdp_load_bytes(ctx, offset, &segment->tcp, sizeof(segment->tcp)))
		return count(MALFORMED, XDP_DROP);
	len = segment->tcp.doff * 4;
	if (len < sizeof(segment->tcp))
		return count(MALFORMED, XDP_DROP);
	segment->tcp_len = len;
	segment->flow.client_port = segment->tcp.source;
	segment->flow.server_port = segment->tcp.dest;
	if (len > sizeof(segment->tcp)) {
		len -= sizeof(segment->tcp);
		if (len > MAX_OPTIONS)
			return count(MALFORMED, XDP_DROP);
		if (bpf_xdp_load_bytes(ctx, offset + sizeof(segment->tcp),
				       segment->tcp_bytes + sizeof(segment->tcp), len))
			return count(MALFORMED, XDP_DROP);
	}
	return -1;
}

struct options {
	const __u8 *bytes;
	struct wishes *wishes;
	__u32 len;
	__u32 at;
};

/* One option of a SYN. */
static long read_option(__u32 index, struct options *options)
{
	__u32 at = options->at, size;
	__u8 kind;

	if (at >= options->len || at >= MAX_OPTIONS)
		return 1;
	kind = options->bytes[at];
	if (kind == TCPOPT_EOL)
		return 1;
	if (kind == TCPOPT_NOP) {
		options->at++;
		return 0;
	}
	if (at + 1 >= options->len || at + 1 >= MAX_OPTIONS)
		return 1;
	size = options->bytes[at + 1];
	if (size < 2 || at + size > options->len)
		return 1;
	if (kind == TCPOPT_WINDOW && size == 3 && at <= MAX_OPTIONS - 3) {
		__u8 wscale = options->bytes[at + 2];

		options->wishes->wscale = wscale < 14 ? wscale : 14; /* RFC 7323, 2.3 */
	} else if (kind == TCPOPT_TIMESTAMP && size == 10 && at <= MAX_OPTIONS - 10) {
		options->wishes->has_timestamp = true;
		__builtin_memcpy(&options->wishes->tsval, options->bytes + at + 2, 4);
	} else if (kind == TCPOPT_SACK_PERM && size == 2) {
		options->wishes->has_sack = true;
	}
	options->at += size;
	return 0;
}

/* A timestamp of now, or a little before, whose last bits are what the client wants. */
static __always_inline __u32 encode_wishes(const struct wishes *wishes, bool has_ecn)
{
	__u32 now = bpf_ktime_get_ns() / NS_PER_TICK, bits = wishes->wscale & TS_OPT_WSCALE_MASK,
	      ts;

	if (wishes->has_sack)
		bits |= TS_OPT_SACK;
	if (has_ecn)
		bits |= TS_OPT_ECN;
	ts = (now & ~TSMASK) | bits;
	return ts > now ? ts - (1 << TSBITS) : ts;
}

/* Write the options of the SYN-ACK; how many bytes. Without a timestamp there is the MSS alone. */
static __always_inline __u32 write_options(__be32 *options, const struct segment *syn,
					   const struct wishes *wishes)
{
	__u16 mss = syn->is_ipv6 ? mss6 : mss4;

	options[0] = bpf_htonl(TCPOPT_MSS << 24 | 4 << 16 | mss);
	if (!timestamps || !wishes->has_timestamp)
		return 4;
	if (wishes->has_sack)
		options[1] =
		    bpf_htonl(TCPOPT_SACK_PERM << 24 | 2 << 16 | TCPOPT_TIMESTAMP << 8 | 10);
	else
		options[1] =
		    bpf_htonl(TCPOPT_NOP << 24 | TCPOPT_NOP << 16 | TCPOPT_TIMESTAMP << 8 | 10);
	options[2] = bpf_htonl(encode_wishes(wishes, syn->tcp.ece && syn->tcp.cwr));
	options[3] = wishes->tsval;
	if (wishes->wscale == TS_OPT_WSCALE_MASK)
		return 16;
	options[4] = bpf_htonl(TCPOPT_NOP << 24 | TCPOPT_WINDOW << 16 | 3 << 8 | window_scale);
	return 20;
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
}

/* Turn the SYN into the SYN-ACK that carries the cookie. */
static __always_inline int send_cookie(struct xdp_md *ctx, struct segment *syn)
{
	struct wishes wishes = {.wscale = TS_OPT_WSCALE_MASK};
	struct options options = {
	    .bytes = syn->tcp_bytes + sizeof(syn->tcp),
	    .wishes = &wishes,
	    .len = syn->tcp_len - sizeof(syn->tcp),
	};
	struct {
		struct tcphdr tcp;
		__be32 options[5];
	} answer = {};
	__be32 sum_over[10] = {};
	__u32 len, ip_len, sum;
	struct ethhdr *eth;
	__s64 cookie;
	void *data_end, *l4;

	if (syn->tcp_len < sizeof(syn->tcp) || syn->tcp_len > MAX_TCP_HEADER)
		return XDP_ABORTED;
	if (syn->is_ipv6)
		cookie = bpf_tcp_raw_gen_syncookie_ipv6(&syn->ip6, &syn->tcp, syn->tcp_len);
	else
		cookie = bpf_tcp_raw_gen_syncookie_ipv4(&syn->ip, &syn->tcp, syn->tcp_len);
	if (cookie < 0)
		return XDP_ABORTED;
	if (bpf_loop(MAX_OPTIONS, read_option, &options, 0) < 0)
		return XDP_ABORTED;

	len = sizeof(answer.tcp) + write_options(answer.options, syn, &wishes);
	answer.tcp.source = syn->tcp.dest;
	answer.tcp.dest = syn->tcp.source;
	answer.tcp.seq = bpf_htonl((__u32)cookie);
	answer.tcp.ack_seq = bpf_htonl(bpf_ntohl(syn->tcp.seq) + 1);
	answer.tcp.doff = len / 4;
	answer.tcp.syn = 1;
	answer.tcp.ack = 1;
	answer.tcp.ece = timestamps && wishes.has_timestamp && syn->tcp.ece && syn->tcp.cwr;
	/* A window of 0: the client sends nothing before the stack has told another one. */

	ip_len = syn->is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	if (bpf_xdp_adjust_tail(ctx, (int)(sizeof(*eth) + ip_len + len) -
					 (int)bpf_xdp_get_buff_len(ctx)))
		return XDP_DROP;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > data_end)
		return XDP_ABORTED;
	swap_macs(eth);
	if (syn->is_ipv6) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);

		if ((void *)(ip6 + 1) > data_end)
			return XDP_ABORTED;
		ip6->saddr = syn->ip6.daddr;
		ip6->daddr = syn->ip6.saddr;
		ip6->payload_len = bpf_htons(len);
		ip6->hop_limit = ttl;
		__builtin_memcpy(sum_over, &ip6->saddr, 32);
	} else {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > data_end)
			return XDP_ABORTED;
		ip->ihl = sizeof(*ip) / 4;
		ip->tos = 0;
		ip->tot_len = bpf_htons(sizeof(*ip) + len);
		ip->id = 0;
		ip->frag_off = bpf_htons(IP_DF);
		ip->ttl = ttl;
		ip->saddr = syn->ip.daddr;
		ip->daddr = syn->ip.saddr;
		ip->check = 0;
		ip->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
		sum_over[0] = ip->saddr;
		sum_over[1] = ip->daddr;
	}
	sum_over[8] = bpf_htonl(len);
	sum_over[9] = bpf_htonl(IPPROTO_TCP);
	sum = bpf_csum_diff(NULL, 0, sum_over, sizeof(sum_over), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&answer, sizeof(answer), sum);
	answer.tcp.check = csum_fold(sum);
	if (len < sizeof(answer.tcp) || len > sizeof(answer))
		return XDP_ABORTED;
	if (bpf_xdp_store_bytes(ctx, sizeof(*eth) + ip_len, &answer, len))
		return XDP_ABORTED;
	return count(COOKIE_SENT, XDP_TX);
}

/* Whether a port is under guard now. A SYN counts. */
static __always_inline bool is_guarded(struct guard *guard, bool is_syn)
{
	__u64 window = bpf_ktime_get_ns() / window_ns;

	if (!guard->max_syns)
		return true;
	if (guard->window != window) {
		guard->window = window;
		guard->syns = 0;
	}
	if (is_syn)
		return __sync_fetch_and_add(&guard->syns, 1) >= guard->max_syns;
	return guard->syns >= guard->max_syns;
}

static __always_inline int judge_ack(struct segment *segment)
{
	struct proven fresh = {.segments = 1}, *proven;
	int error;

	proven = bpf_map_lookup_elem(&connections, &segment->flow);
	if (proven) {
		proven->segments++;
		if (segment->tcp.fin || segment->tcp.rst)
			proven->closing = 1;
		return count(KNOWN, XDP_PASS);
	}
	if (segment->tcp.rst || segment->tcp.fin)
		return count(COOKIE_INVALID, XDP_DROP);
	if (segment->is_ipv6)
		error = bpf_tcp_raw_check_syncookie_ipv6(&segment->ip6, &segment->tcp);
	else
		error = bpf_tcp_raw_check_syncookie_ipv4(&segment->ip, &segment->tcp);
	if (error)
		return count(COOKIE_INVALID, XDP_DROP);
	fresh.since_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&connections, &segment->flow, &fresh, BPF_ANY);
	return count(COOKIE_VALID, XDP_PASS);
}

SEC("xdp")
int syn_proxy(struct xdp_md *ctx)
{
	struct segment segment = {};
	struct prefix source = {.bits = 128};
	struct guard *guard;
	int verdict;
	bool is_syn;
	__u16 port;

	verdict = read_segment(ctx, &segment);
	if (verdict >= 0)
		return verdict;
	port = bpf_ntohs(segment.tcp.dest);
	guard = bpf_map_lookup_elem(&guards, &port);
	if (!guard)
		return count(CLOSED, XDP_DROP);
	source.addr = segment.flow.client;
	if (bpf_map_lookup_elem(&trusted, &source))
		return count(TRUSTED, XDP_PASS);
	is_syn = segment.tcp.syn && !segment.tcp.ack;
	if ((is_syn && (segment.tcp.fin || segment.tcp.rst)) || !(is_syn || segment.tcp.ack) ||
	    (segment.tcp.syn && segment.tcp.ack))
		return count(BAD_FLAGS, XDP_DROP);
	if (!is_guarded(guard, is_syn))
		return count(BELOW_LIMIT, XDP_PASS);
	return is_syn ? send_cookie(ctx, &segment) : judge_ack(&segment);
}

char _license[] SEC("license") = "Dual MIT/GPL";
