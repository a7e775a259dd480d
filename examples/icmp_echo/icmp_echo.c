// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * icmp_echo: answer pings, IPv4 and IPv6, for every address that is routed here.
 *
 * The reply is the request with its addresses swapped, its type changed and its TTL renewed; the
 * checksums are updated by difference (RFC 1624), so the payload is never read. A request whose
 * checksum is wrong gets a reply whose checksum is wrong by as much, and its sender discards it.
 *
 * Everything else goes to the host: other protocols, fragments, VLAN tags, IPv4 options, IPv6
 * extension headers, malformed packets, and whatever is not from and to unicast addresses.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH_GROUP_BIT 0x01
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define REPLY_TTL 64

/* Not from linux/icmp.h: that includes sys/socket.h, and so the C library of a 32-bit target. */
#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8

/* The same in ICMP (RFC 792) and in ICMPv6 (RFC 4443). */
struct echo {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

enum family {
	FAMILY_IPV4,
	FAMILY_IPV6,
	NUM_FAMILIES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_FAMILIES);
	__type(key, __u32); /* enum family */
	__type(value, __u64);
} replies SEC(".maps");

/* The checksum after one of the summed words changed: RFC 1624, equation 3. */
static __always_inline __sum16 csum_replace(__sum16 check, __be16 before, __be16 after)
{
	__u32 sum = (__u16)~check + (__u16)~before + after;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Not "this network" (0/8), loopback (127/8), multicast (224/4) or reserved (240/4). */
static __always_inline bool is_unicast4(__be32 addr)
{
	__u32 net = bpf_ntohl(addr) >> 24;

	return net != 0 && net != 127 && net < 224;
}

/* Not multicast (ff00::/8), and not within 0::/8, where :: and ::1 are. */
static __always_inline bool is_unicast6(const struct in6_addr *addr)
{
	return addr->s6_addr[0] != 0xff && addr->s6_addr[0] != 0;
}

static __always_inline bool answer_ipv4(struct iphdr *ip, void *data_end)
{
	struct echo *echo = (void *)(ip + 1);
	__be32 requester;
	__u32 len;

	if ((void *)(echo + 1) > data_end)
		return false;
	if (ip->version != 4 || ip->ihl != sizeof(*ip) / 4 || ip->protocol != IPPROTO_ICMP ||
	    ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return false;
	len = bpf_ntohs(ip->tot_len);
	if (len < sizeof(*ip) + sizeof(*echo) || len > data_end - (void *)ip)
		return false;
	if (echo->type != ICMP_ECHO || echo->code != 0)
		return false;
	if (!is_unicast4(ip->saddr) || !is_unicast4(ip->daddr))
		return false;

	echo->type = ICMP_ECHOREPLY;
	echo->checksum =
	    csum_replace(echo->checksum, bpf_htons(ICMP_ECHO << 8), bpf_htons(ICMP_ECHOREPLY << 8));

	ip->check = csum_replace(ip->check, bpf_htons(ip->ttl << 8 | IPPROTO_ICMP),
				 bpf_htons(REPLY_TTL << 8 | IPPROTO_ICMP));
	ip->ttl = REPLY_TTL;
	requester = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = requester;
	return true;
}

static __always_inline bool answer_ipv6(struct ipv6hdr *ip, void *data_end)
{
	struct echo *echo = (void *)(ip + 1);
	struct in6_addr requester;
	__u32 len;

	if ((void *)(echo + 1) > data_end)
		return false;
	if (ip->version != 6 || ip->nexthdr != IPPROTO_ICMPV6)
		return false;
	len = bpf_ntohs(ip->payload_len);
	if (len < sizeof(*echo) || len > data_end - (void *)echo)
		return false;
	if (echo->type != ICMPV6_ECHO_REQUEST || echo->code != 0)
		return false;
	if (!is_unicast6(&ip->saddr) || !is_unicast6(&ip->daddr))
		return false;

	/* The checksum covers the addresses too, but a sum does not change with their order. */
	echo->type = ICMPV6_ECHO_REPLY;
	echo->checksum = csum_replace(echo->checksum, bpf_htons(ICMPV6_ECHO_REQUEST << 8),
				      bpf_htons(ICMPV6_ECHO_REPLY << 8));

	ip->hop_limit = REPLY_TTL;
	requester = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = requester;
	return true;
}

SEC("xdp")
int icmp_echo(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	unsigned char requester[ETH_ALEN];
	struct ethhdr *eth = data;
	bool answered = false;
	__u32 family;
	__u64 *count;

	if ((void *)(eth + 1) > data_end || eth->h_dest[0] & ETH_GROUP_BIT)
		return XDP_PASS;

	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		family = FAMILY_IPV4;
		answered = answer_ipv4((void *)(eth + 1), data_end);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		family = FAMILY_IPV6;
		answered = answer_ipv6((void *)(eth + 1), data_end);
	}
	if (!answered)
		return XDP_PASS;

	__builtin_memcpy(requester, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, requester, ETH_ALEN);

	count = bpf_map_lookup_elem(&replies, &family);
	if (count)
		++*count;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
