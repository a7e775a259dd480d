// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * dns_limiter: keeps floods of queries away from a DNS server, as response rate limiting does.
 *
 * A chain of programs, one step each, connected by tail calls:
 *
 *   dns_limiter   finds queries (UDP, port 53), and the policy for where they come from
 *   check_name    refuses names beneath blocked domains, and queries of type ANY
 *   limit         counts queries per network and window of time
 *   answer        turns the query into a short answer: REFUSED, or truncated
 *
 * Of the queries over the limit every slip-th is answered with TC set and nothing else: who really
 * asks comes again over TCP, and a forged address gets no more than was sent. The others are
 * dropped. What a step finds out is in front of the frame, as metadata, for the next one.
 *
 * Domains are blocked with all that is beneath them. The trie's keys are names as on the wire, from
 * the last byte to the first, in lower case: so a domain is a prefix, and ends where a label does.
 *
 * It fails open: what is no query that can be read goes to the server, which has a parser.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define DNS_PORT 53
#define DNS_QR 0x8000
#define DNS_OPCODE 0x7800
#define DNS_TC 0x0200
#define DNS_RD 0x0100
#define DNS_REFUSED 5
#define DNS_TYPE_ANY 255

/* Of a name, with its length bytes, without the root's; longer ones are not looked at. */
#define MAX_NAME 64
#define MAX_OFFSET 128
/* The UDP datagram of an answer: headers, the name, the root, type and class. */
#define MAX_ANSWER (8 + 12 + MAX_NAME + 8)

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* Queries are counted per window; and per network of so many bits. */
const volatile __u64 window_ns = 1000000000ULL;
const volatile __u32 network_bits4 = 24;
const volatile __u32 network_bits6 = 56;
/* For sources without a policy. */
const volatile __u32 default_rate = 100;
const volatile __u32 default_slip = 2;

enum step {
	STEP_CHECK_NAME,
	STEP_LIMIT,
	STEP_ANSWER,
	NUM_STEPS,
};

enum counter {
	NOT_A_QUERY,
	EXEMPT,
	BANNED,
	NAME_BLOCKED,
	TYPE_REFUSED,
	NAME_NOT_READ,
	WITHIN_LIMIT,
	DROPPED,
	TRUNCATED,
	REFUSED,
	NUM_COUNTERS,
};

enum policy_flags {
	POLICY_EXEMPT = 1 << 0, /* no limit, no checks */
	POLICY_BANNED = 1 << 1, /* no service */
};

struct policy {
	__u32 flags;
	__u32 rate; /* queries per window and network */
	__u32 slip; /* every slip-th query over the limit is answered; 0: none */
};

/* What the steps tell each other. */
struct note {
	__u16 l4; /* where the UDP header is */
	__u8 is_ipv6;
	__u8 is_refused;
	__u16 question_bytes; /* 0: unknown */
	__u16 zero;
	__u32 rate;
	__u32 slip;
};

struct dnshdr {
	__be16 id;
	__be16 flags;
	__be16 questions;
	__be16 answers;
	__be16 authorities;
	__be16 additional;
};

struct prefix4 {
	__u32 bits;
	__be32 addr;
};

struct prefix6 {
	__u32 bits;
	struct in6_addr addr;
};

struct domain {
	__u32 bits;
	__u8 name[MAX_NAME];
};

struct usage {
	__u64 window;
	__u32 queries;
	__u32 over; /* since ever */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, struct policy);
} policies4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, struct policy);
} policies6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct domain);
	__type(value, __u32); /* how often it was asked for */
} blocked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, struct prefix6); /* IPv4 as ::ffff:a.b.c.d */
	__type(value, struct usage);
} usage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

int check_name(struct xdp_md *ctx);
int limit(struct xdp_md *ctx);
int answer(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, NUM_STEPS);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} steps SEC(".maps") = {
    .values =
	{
	    [STEP_CHECK_NAME] = (void *)&check_name,
	    [STEP_LIMIT] = (void *)&limit,
	    [STEP_ANSWER] = (void *)&answer,
	},
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

/* The note in front of the frame, or NULL. */
static __always_inline struct note *note_of(struct xdp_md *ctx)
{
	struct note *note = (void *)(long)ctx->data_meta;

	return (void *)(note + 1) > (void *)(long)ctx->data ? NULL : note;
}

/* Take the note away, and let the server have the frame. */
static __always_inline int pass(struct xdp_md *ctx)
{
	bpf_xdp_adjust_meta(ctx, sizeof(struct note));
	return XDP_PASS;
}

SEC("xdp")
int dns_limiter(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct policy *policy;
	struct dnshdr *dns;
	struct udphdr *udp;
	struct note *note;
	__u32 rate = default_rate, slip = default_slip;
	bool is_ipv6;

	if ((void *)(eth + 1) > data_end)
		return count(NOT_A_QUERY, XDP_PASS);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct prefix4 source = {.bits = 32};
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > data_end || ip->ihl != 5 || ip->protocol != IPPROTO_UDP ||
		    ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return count(NOT_A_QUERY, XDP_PASS);
		source.addr = ip->saddr;
		policy = bpf_map_lookup_elem(&policies4, &source);
		udp = (void *)(ip + 1);
		is_ipv6 = false;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct prefix6 source = {.bits = 128};
		struct ipv6hdr *ip6 = (void *)(eth + 1);

		if ((void *)(ip6 + 1) > data_end || ip6->nexthdr != IPPROTO_UDP)
			return count(NOT_A_QUERY, XDP_PASS);
		source.addr = ip6->saddr;
		policy = bpf_map_lookup_elem(&policies6, &source);
		udp = (void *)(ip6 + 1);
		is_ipv6 = true;
	} else {
		return count(NOT_A_QUERY, XDP_PASS);
	}
	dns = (void *)(udp + 1);
	if ((void *)(dns + 1) > data_end || udp->dest != bpf_htons(DNS_PORT))
		return count(NOT_A_QUERY, XDP_PASS);
	if (dns->flags & bpf_htons(DNS_QR | DNS_OPCODE) || dns->questions != bpf_htons(1))
		return count(NOT_A_QUERY, XDP_PASS);
	if (policy) {
		if (policy->flags & POLICY_BANNED)
			return count(BANNED, XDP_DROP);
		if (policy->flags & POLICY_EXEMPT)
			return count(EXEMPT, XDP_PASS);
		rate = policy->rate;
		slip = policy->slip;
	}
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*note)))
		return XDP_PASS; /* this driver has no metadata */
	note = note_of(ctx);
	if (!note)
		return XDP_ABORTED;
	note->l4 = sizeof(*eth) + (is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	note->is_ipv6 = is_ipv6;
	note->is_refused = false;
	note->question_bytes = 0;
	note->zero = 0;
	note->rate = rate;
	note->slip = slip;
	bpf_tail_call(ctx, &steps, STEP_CHECK_NAME);
	return pass(ctx);
}

/* How long a name is, without the root's byte, or -1. Makes it lower case. */
static __always_inline int name_bytes(__u8 *name, __u32 bytes)
{
	__u32 left = 0;

	for (int i = 0; i < MAX_NAME; i++) {
		__u8 c = name[i];

		if (i >= bytes)
			return -1;
		if (left) {
			left--;
			if (c >= 'A' && c <= 'Z')
				name[i] = c | 0x20;
		} else if (!c) {
			return i;
		} else if (c > 63) {
			return -1; /* a pointer, which a question has no use for */
		} else {
			left = c;
		}
	}
	return -1;
}

SEC("xdp")
int check_name(struct xdp_md *ctx)
{
	__u32 available = bpf_xdp_get_buff_len(ctx);
	struct note *note = note_of(ctx);
	__u8 name[MAX_NAME] = {};
	struct domain domain = {};
	__u32 offset, *asked;
	__be16 type;
	int bytes;

	if (!note)
		return XDP_ABORTED;
	offset = note->l4 + sizeof(struct udphdr) + sizeof(struct dnshdr);
	if (offset > MAX_OFFSET || available <= offset)
		goto unread;
	available -= offset;
	if (available > MAX_NAME)
		available = MAX_NAME;
	barrier_var(available); /* the verifier forgot that it is not zero */
	if (!available)
		goto unread;
	if (bpf_xdp_load_bytes(ctx, offset, name, available))
		goto unread;
	bytes = name_bytes(name, available);
	if (bytes < 0)
		goto unread;
	if (bpf_xdp_load_bytes(ctx, offset + bytes + 1, &type, sizeof(type)))
		goto unread;

	domain.bits = bytes * 8;
	for (int i = 0; i < MAX_NAME; i++) {
		if (i >= bytes)
			break;
		domain.name[i] = name[(bytes - 1 - i) & (MAX_NAME - 1)];
	}
	asked = bpf_map_lookup_elem(&blocked, &domain);
	note = note_of(ctx);
	if (!note)
		return XDP_ABORTED;
	note->question_bytes = bytes + 5;
	if (asked) {
		__sync_fetch_and_add(asked, 1);
		count(NAME_BLOCKED, 0);
		note->is_refused = true;
	} else if (type == bpf_htons(DNS_TYPE_ANY)) {
		count(TYPE_REFUSED, 0);
		note->is_refused = true;
	}
	if (note->is_refused)
		bpf_tail_call(ctx, &steps, STEP_ANSWER);
	bpf_tail_call(ctx, &steps, STEP_LIMIT);
	return pass(ctx);
unread:
	count(NAME_NOT_READ, 0);
	bpf_tail_call(ctx, &steps, STEP_LIMIT);
	return pass(ctx);
}

/* Keep the first bits of an address; an IPv4 address has 96 in front of it. */
static __always_inline void keep_network(struct in6_addr *addr, __u32 bits)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 kept = bits > 32 * i ? bits - 32 * i : 0;
		__u32 mask = kept >= 32 ? ~0u : ~(~0u >> kept);

		addr->in6_u.u6_addr32[i] &= bpf_htonl(mask);
	}
}

/* Read where a query came from; the key of its network. */
static __always_inline bool network_of(struct xdp_md *ctx, bool is_ipv6, struct prefix6 *network)
{
	__u32 bits = is_ipv6 ? network_bits6 : 96 + network_bits4;
	__u32 offset = sizeof(struct ethhdr);

	if (is_ipv6) {
		offset += offsetof(struct ipv6hdr, saddr);
		if (bpf_xdp_load_bytes(ctx, offset, &network->addr, 16))
			return false;
	} else {
		offset += offsetof(struct iphdr, saddr);
		if (bpf_xdp_load_bytes(ctx, offset, &network->addr.in6_u.u6_addr32[3], 4))
			return false;
		network->addr.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	}
	network->bits = bits;
	keep_network(&network->addr, bits);
	return true;
}

SEC("xdp")
int limit(struct xdp_md *ctx)
{
	struct note *note = note_of(ctx);
	__u64 window = bpf_ktime_get_ns() / window_ns;
	struct usage fresh = {.window = window}, *used;
	struct prefix6 network = {};
	__u32 rate, slip, over;

	if (!note)
		return XDP_ABORTED;
	rate = note->rate;
	slip = note->slip;
	if (!network_of(ctx, note->is_ipv6, &network))
		return XDP_ABORTED;
	used = bpf_map_lookup_elem(&usage, &network);
	if (!used) {
		bpf_map_update_elem(&usage, &network, &fresh, BPF_NOEXIST);
		used = bpf_map_lookup_elem(&usage, &network);
		if (!used)
			return pass(ctx);
	}
	if (used->window != window) {
		used->window = window;
		used->queries = 0;
	}
	if (__sync_fetch_and_add(&used->queries, 1) < rate)
		return count(WITHIN_LIMIT, pass(ctx));
	over = __sync_fetch_and_add(&used->over, 1);
	note = note_of(ctx);
	if (note && note->question_bytes && slip && over % slip == slip - 1)
		bpf_tail_call(ctx, &steps, STEP_ANSWER);
	return count(DROPPED, XDP_DROP);
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
}

/* The query becomes its answer: the header, the question, and nothing else. */
SEC("xdp")
int answer(struct xdp_md *ctx)
{
	struct note *noted = note_of(ctx), note;
	__u8 datagram[MAX_ANSWER] = {};
	void *data, *data_end;
	__be32 sum_over[10] = {};
	struct ethhdr *eth;
	struct udphdr *udp;
	struct dnshdr *dns;
	__u32 length, bytes, sum;
	__be16 port;

	if (!noted)
		return XDP_ABORTED;
	note = *noted;
	length = sizeof(*udp) + sizeof(*dns) + note.question_bytes;
	if (length > MAX_ANSWER || note.l4 > MAX_OFFSET)
		return XDP_ABORTED;
	bytes = bpf_xdp_get_buff_len(ctx);
	if (bpf_xdp_adjust_tail(ctx, (int)(note.l4 + length) - (int)bytes))
		return count(DROPPED, XDP_DROP); /* the question is cut */
	if (bpf_xdp_adjust_meta(ctx, sizeof(note)))
		return XDP_ABORTED;
	data_end = (void *)(long)ctx->data_end;
	data = (void *)(long)ctx->data;
	eth = data;
	udp = data + note.l4;
	dns = (void *)(udp + 1);
	if ((void *)(eth + 1) > data_end || (void *)(dns + 1) > data_end)
		return XDP_ABORTED;
	swap_macs(eth);
	if (note.is_ipv6) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);
		struct in6_addr addr;

		if ((void *)(ip6 + 1) > data_end)
			return XDP_ABORTED;
		addr = ip6->saddr;
		ip6->saddr = ip6->daddr;
		ip6->daddr = addr;
		ip6->hop_limit = 64;
		ip6->payload_len = bpf_htons(length);
		__builtin_memcpy(sum_over, &ip6->saddr, 32);
	} else {
		struct iphdr *ip = (void *)(eth + 1);
		__be32 addr;

		if ((void *)(ip + 1) > data_end)
			return XDP_ABORTED;
		addr = ip->saddr;
		ip->saddr = ip->daddr;
		ip->daddr = addr;
		ip->ttl = 64;
		ip->tot_len = bpf_htons(sizeof(*ip) + length);
		ip->check = 0;
		ip->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
		sum_over[0] = ip->saddr;
		sum_over[1] = ip->daddr;
	}
	sum_over[8] = bpf_htonl(length);
	sum_over[9] = bpf_htonl(IPPROTO_UDP);

	port = udp->source;
	udp->source = udp->dest;
	udp->dest = port;
	udp->len = bpf_htons(length);
	udp->check = 0;
	dns->flags = (dns->flags & bpf_htons(DNS_RD)) |
		     bpf_htons(DNS_QR | (note.is_refused ? DNS_REFUSED : DNS_TC));
	dns->answers = 0;
	dns->authorities = 0;
	dns->additional = 0;

	if (length < sizeof(*udp) || bpf_xdp_load_bytes(ctx, note.l4, datagram, length))
		return XDP_ABORTED;
	sum = bpf_csum_diff(NULL, 0, sum_over, sizeof(sum_over), 0);
	sum = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)datagram, sizeof(datagram), sum));
	data_end = (void *)(long)ctx->data_end;
	udp = (void *)(long)ctx->data + note.l4;
	if ((void *)(udp + 1) > data_end)
		return XDP_ABORTED;
	udp->check = sum ? sum : 0xffff;
	return count(note.is_refused ? REFUSED : TRUNCATED, XDP_TX);
}

char _license[] SEC("license") = "Dual MIT/GPL";
