// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * payload_hash: fingerprint TCP and UDP payloads, and drop those on a blocklist.
 *
 * A flood often repeats one payload from many addresses. The histogram shows it: one bucket grows
 * and holds the fingerprint, which then goes into the blocklist.
 *
 * The hash keeps eight independent 32-bit lanes, each fed by one word of every 32-byte block, and
 * joins them at the end. A compiler for a CPU with 256-bit vectors can hold all lanes in a single
 * register, while BPF takes them one after the other. It spreads well, but is not cryptographic:
 * whoever knows it can forge a fingerprint.
 *
 * Hashed are untagged, unfragmented IPv4 (with options) and IPv6 (without extension headers), and
 * the first 1504 bytes of a payload. All else passes.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define LANES 8
#define BLOCK_BYTES 32 /* LANES words */
#define MAX_BLOCKS 47  /* a full Ethernet payload of 1500 bytes */

#define MAX_BLOCKED (1 << 16)
#define HISTOGRAM_BITS 8

#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define PHI32 0x9e3779b1U	    /* primes near 2^32 / golden ratio */
#define PHI64 0x9e3779b97f4a7c55ULL /* and 2^64 / golden ratio */

enum counter {
	COUNTER_HASHED,
	COUNTER_BLOCKED,   /* of the hashed ones */
	COUNTER_SKIPPED,   /* not TCP or UDP, a fragment, or no payload */
	COUNTER_MALFORMED, /* such as shorter than its headers say */
	NUM_COUNTERS,
};

struct bucket {
	__u64 packets;
	__u64 last; /* fingerprint of the latest one */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_BLOCKED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);   /* fingerprint */
	__type(value, __u64); /* packets dropped */
} blocklist SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << HISTOGRAM_BITS);
	__type(key, __u32); /* upper bits of the fingerprint */
	__type(value, struct bucket);
} histogram SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

/* Part of a frame, according to its headers. */
struct span {
	__u32 offset; /* from the first byte of the frame */
	__u32 len;
};

static __always_inline void count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		++*counter;
}

/*
 * The parsers return NUM_COUNTERS if they found what they look for, or else the counter that says
 * why not.
 */
static __always_inline __u32 parse_ip(void *data, void *data_end, struct span *l4, __u8 *proto)
{
	struct ethhdr *eth = data;
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(eth + 1) > data_end)
		return COUNTER_MALFORMED;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		__u32 header_len, len;

		if ((void *)(ip + 1) > data_end || ip->version != 4)
			return COUNTER_MALFORMED;
		header_len = ip->ihl * 4;
		len = bpf_ntohs(ip->tot_len);
		if (header_len < sizeof(*ip) || len < header_len || len > data_end - (void *)ip)
			return COUNTER_MALFORMED;
		if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return COUNTER_SKIPPED;
		*proto = ip->protocol;
		l4->offset = sizeof(*eth) + header_len;
		l4->len = len - header_len;
		return NUM_COUNTERS;
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if ((void *)(ip6 + 1) > data_end || ip6->version != 6)
			return COUNTER_MALFORMED;
		*proto = ip6->nexthdr;
		l4->offset = sizeof(*eth) + sizeof(*ip6);
		l4->len = bpf_ntohs(ip6->payload_len);
		if (l4->len > data_end - (void *)(ip6 + 1))
			return COUNTER_MALFORMED;
		return NUM_COUNTERS;
	}
	return COUNTER_SKIPPED;
}

static __always_inline __u32 parse_transport(void *data, void *data_end, const struct span *l4,
					     __u8 proto, struct span *payload)
{
	struct tcphdr *tcp = data + l4->offset;
	struct udphdr *udp = data + l4->offset;
	__u32 header_len, len = l4->len;

	if (proto == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > data_end)
			return COUNTER_MALFORMED;
		header_len = tcp->doff * 4;
		if (header_len < sizeof(*tcp))
			return COUNTER_MALFORMED;
	} else if (proto == IPPROTO_UDP) {
		if ((void *)(udp + 1) > data_end)
			return COUNTER_MALFORMED;
		header_len = sizeof(*udp);
		len = bpf_ntohs(udp->len);
		if (len > l4->len)
			return COUNTER_MALFORMED;
	} else {
		return COUNTER_SKIPPED;
	}
	if (len < header_len)
		return COUNTER_MALFORMED;
	payload->offset = l4->offset + header_len;
	payload->len = len - header_len;
	return payload->len ? NUM_COUNTERS : COUNTER_SKIPPED;
}

static __always_inline void mix(__u32 *lanes, const __u32 *block)
{
	for (int i = 0; i < LANES; i++) {
		/* The product does not depend on the lane, which keeps the chain of lanes short. */
		__u32 word = (block[i] ^ block[i] >> 15) * PHI32;
		__u32 lane = lanes[i] ^ word;

		lanes[i] = (lane << 11 | lane >> 21) * 9;
	}
}

static __always_inline __u64 join(const __u32 *lanes, __u64 hash)
{
	for (int i = 0; i < LANES; i += 2) {
		hash = (hash ^ ((__u64)lanes[i] << 32 | lanes[i + 1])) * PHI64;
		hash ^= hash >> 29;
	}
	return hash * PHI64;
}

/*
 * Hash the payload where it is. The headers were checked, but the verifier wants to see for every
 * access that it ends within the frame: false if not.
 */
static __always_inline bool hash_payload(struct xdp_md *ctx, const struct span *payload,
					 __u64 *hash)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	__u32 lanes[LANES], tail[LANES] = {};
	__u32 offset = payload->offset;
	__u32 left = payload->len;
	__u32 blocks;

	for (int i = 0; i < LANES; i++)
		lanes[i] = (i + 1) * PHI32;

	for (blocks = 0; blocks < MAX_BLOCKS && left >= BLOCK_BYTES; blocks++) {
		const __u32 *block = data + offset;

		if ((void *)(block + LANES) > data_end)
			break;
		mix(lanes, block);
		offset += BLOCK_BYTES;
		left -= BLOCK_BYTES;
	}
	if (blocks < MAX_BLOCKS && left) {
		/* Filled up with zeroes; the length below tells them from the payload's own. */
		if (left >= BLOCK_BYTES || bpf_xdp_load_bytes(ctx, offset, tail, left))
			return false;
		mix(lanes, tail);
	}
	*hash = join(lanes, payload->len);
	return true;
}

SEC("xdp")
int payload_hash(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct span l4, payload;
	struct bucket *bucket;
	__u64 hash, *blocked;
	__u32 which;
	__u8 proto;

	which = parse_ip(data, data_end, &l4, &proto);
	if (which == NUM_COUNTERS)
		which = parse_transport(data, data_end, &l4, proto, &payload);
	if (which == NUM_COUNTERS && !hash_payload(ctx, &payload, &hash))
		which = COUNTER_MALFORMED;
	if (which != NUM_COUNTERS) {
		count(which);
		return XDP_PASS;
	}
	count(COUNTER_HASHED);

	which = hash >> (64 - HISTOGRAM_BITS);
	bucket = bpf_map_lookup_elem(&histogram, &which);
	if (bucket) {
		bucket->packets++;
		bucket->last = hash;
	}

	blocked = bpf_map_lookup_elem(&blocklist, &hash);
	if (!blocked)
		return XDP_PASS;
	__sync_fetch_and_add(blocked, 1);
	count(COUNTER_BLOCKED);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
