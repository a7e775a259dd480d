/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What is read of a packet, its hash, and checksums. */
#ifndef PACKET_H
#define PACKET_H

#include "maps.h"

/* What was read of a packet. */
struct packet {
	struct flow flow;
	__u32 flags; /* enum packet_flags */
	__u16 bytes; /* of the IP packet */
	__u8 tos;
	__u8 zero;
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

static __always_inline void fill_ip_checksum(struct iphdr *ip)
{
	ip->check = 0;
	ip->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
}

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	word *= 0xcc9e2d51;
	word = word << 15 | word >> 17;
	hash ^= word * 0x1b873593;
	hash = hash << 13 | hash >> 19;
	return hash * 5 + 0xe6546b64;
}

static __always_inline __u32 hash_flow(const struct flow *flow, __u32 flags, bool is_ipv6)
{
	__u32 hash = 0, ports = flow->ports;

	if (flags & VIP_NO_SOURCE_PORT)
		ports &= bpf_htonl(0x0000ffff);
	if (flags & VIP_DEST_PORT_ONLY) {
		hash = mix(hash, flow->port16[1]);
	} else {
		hash = mix(hash, flow->src);
		if (is_ipv6) {
			hash = mix(hash, flow->srcv6[1]);
			hash = mix(hash, flow->srcv6[2]);
			hash = mix(hash, flow->srcv6[3]);
		}
		hash = mix(hash, ports);
	}
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	return hash ^ hash >> 16;
}

/* Read an IP header's addresses; where the next header is, or NULL. */
static __always_inline void *read_addresses(void *l3, void *data_end, bool is_ipv6, bool is_quoted,
					    struct packet *packet)
{
	if (is_ipv6) {
		struct ipv6hdr *ip6 = l3;

		if ((void *)(ip6 + 1) > data_end || ip6->version != 6)
			return NULL;
		packet->flow.proto = ip6->nexthdr;
		if (!is_quoted) {
			packet->bytes = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
			packet->tos = ip6->priority << 4 | ip6->flow_lbl[0] >> 4;
		}
		__builtin_memcpy(packet->flow.srcv6, is_quoted ? &ip6->daddr : &ip6->saddr, 16);
		__builtin_memcpy(packet->flow.dstv6, is_quoted ? &ip6->saddr : &ip6->daddr, 16);
		return ip6 + 1;
	} else {
		struct iphdr *ip = l3;

		if ((void *)(ip + 1) > data_end || ip->version != 4 || ip->ihl != 5)
			return NULL;
		packet->flow.proto = ip->protocol;
		if (!is_quoted) {
			packet->bytes = bpf_ntohs(ip->tot_len);
			packet->tos = ip->tos;
		}
		packet->flow.src = is_quoted ? ip->daddr : ip->saddr;
		packet->flow.dst = is_quoted ? ip->saddr : ip->daddr;
		return ip + 1;
	}
}

/* Read the ports: as they are, or of a quoted answer the other way round. */
static __always_inline bool read_ports(void *l4, void *data_end, struct packet *packet)
{
	bool is_quoted = packet->flags & PACKET_QUOTED;
	__be16 *ports = l4;

	if (packet->flow.proto != IPPROTO_TCP && packet->flow.proto != IPPROTO_UDP)
		return false;
	if (l4 + sizeof(struct udphdr) > data_end)
		return false;
	packet->flow.port16[0] = is_quoted ? ports[1] : ports[0];
	packet->flow.port16[1] = is_quoted ? ports[0] : ports[1];
	if (packet->flow.proto == IPPROTO_TCP && !is_quoted) {
		struct tcphdr *tcp = l4;

		if ((void *)(tcp + 1) > data_end)
			return false;
		if (tcp->syn)
			packet->flags |= PACKET_SYN;
	}
	return true;
}

#endif
