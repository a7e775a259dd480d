/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Outer headers. */
#ifndef WRAPPING_H
#define WRAPPING_H

#include "packet.h"

static __always_inline void write_outer4(struct iphdr *ip, const struct gateway *via, __be32 real,
					 __u8 proto, __u8 tos, __u16 bytes)
{
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = tos;
	ip->tot_len = bpf_htons(bytes + sizeof(*ip));
	ip->id = 0;
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = OUTER_TTL;
	ip->protocol = proto;
	ip->saddr = via->source;
	ip->daddr = real;
	fill_ip_checksum(ip);
}

static __always_inline void write_outer6(struct ipv6hdr *ip6, const struct gateway *via,
					 const __be32 *real, __u8 proto, __u8 tos, __u16 bytes)
{
	ip6->version = 6;
	ip6->priority = tos >> 4;
	ip6->flow_lbl[0] = tos << 4;
	ip6->flow_lbl[1] = 0;
	ip6->flow_lbl[2] = 0;
	ip6->payload_len = bpf_htons(bytes);
	ip6->nexthdr = proto;
	ip6->hop_limit = OUTER_TTL;
	__builtin_memcpy(&ip6->saddr, via->sourcev6, 16);
	__builtin_memcpy(&ip6->daddr, real, 16);
}

/* No checksum: over IPv4 it is optional, over IPv6 tunnels may do without (RFC 6935). */
static __always_inline void write_gue(struct udphdr *udp, __u32 hash, __u16 bytes)
{
	udp->source = bpf_htons(0xc000 | (hash & 0x3fff));
	udp->dest = bpf_htons(GUE_PORT);
	udp->len = bpf_htons(bytes + sizeof(*udp));
	udp->check = 0;
}

/* Put the outer headers in front. Earlier pointers into the frame are invalid. */
static __always_inline bool wrap(struct xdp_md *ctx, const struct packet *packet,
				 const struct real *real, const struct gateway *via, bool is_ipv6)
{
	bool outer_is_ipv6 = real->flags & REAL_IPV6, is_gue = real->flags & REAL_GUE;
	__u32 hash = hash_flow(&packet->flow, 0, is_ipv6);
	__u8 inner_proto = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IPIP;
	int room = outer_is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	__u16 bytes = packet->bytes;
	struct ethhdr *eth;
	__u8 mac[ETH_ALEN];
	void *data_end, *l4;

	if (is_ipv6 && !outer_is_ipv6)
		return false; /* who has IPv6 clients has IPv6 reals */
	if (is_gue)
		room += sizeof(struct udphdr);
	if (bpf_xdp_load_bytes(ctx, 0, mac, sizeof(mac)))
		return false;
	if (bpf_xdp_adjust_head(ctx, -room))
		return false;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	l4 = (void *)(eth + 1) + (outer_is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	if (l4 + sizeof(struct udphdr) > data_end)
		return false;
	__builtin_memcpy(eth->h_source, mac, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, via->mac, ETH_ALEN);
	eth->h_proto = outer_is_ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (is_gue) {
		write_gue(l4, hash, bytes);
		bytes += sizeof(struct udphdr);
		inner_proto = IPPROTO_UDP;
	}
	if (outer_is_ipv6)
		write_outer6((void *)(eth + 1), via, real->dstv6, inner_proto, packet->tos, bytes);
	else
		write_outer4((void *)(eth + 1), via, real->dst, inner_proto, packet->tos, bytes);
	count(is_gue ? SENT_GUE : SENT_IPIP, 0);
	return true;
}

#endif
