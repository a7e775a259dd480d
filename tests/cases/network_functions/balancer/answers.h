/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The balancer's own answers: echo replies, and what is too big. */
#ifndef ANSWERS_H
#define ANSWERS_H

#include "packet.h"

static __always_inline int send_echo_reply4(struct xdp_md *ctx, struct ethhdr *eth,
					    struct iphdr *ip, struct icmphdr *icmp)
{
	__be32 addr = ip->daddr;
	__u32 sum;

	swap_macs(eth);
	ip->daddr = ip->saddr;
	ip->saddr = addr;
	ip->ttl = ECHO_TTL;
	fill_ip_checksum(ip);
	icmp->type = ICMP_ECHOREPLY;
	sum = (__u16)~icmp->checksum + (__u16)~bpf_htons(ICMP_ECHO << 8);
	icmp->checksum = csum_fold(sum);
	return count(ECHO_SENT, XDP_TX);
}

static __always_inline int send_echo_reply6(struct xdp_md *ctx, struct ethhdr *eth,
					    struct ipv6hdr *ip6, struct icmp6hdr *icmp)
{
	struct in6_addr addr = ip6->daddr;
	__u32 sum;

	swap_macs(eth);
	ip6->daddr = ip6->saddr;
	ip6->saddr = addr;
	ip6->hop_limit = ECHO_TTL;
	icmp->icmp6_type = ICMPV6_ECHO_REPLY;
	sum = (__u16)~icmp->icmp6_cksum + (__u16)~bpf_htons(ICMPV6_ECHO_REQUEST << 8) +
	      bpf_htons(ICMPV6_ECHO_REPLY << 8);
	icmp->icmp6_cksum = csum_fold(sum);
	return count(ECHO_SENT, XDP_TX);
}

/* The packet, cut, becomes what its answer quotes. */
static __always_inline int send_too_big4(struct xdp_md *ctx)
{
	int length = bpf_xdp_get_buff_len(ctx);
	struct ethhdr *eth, before;
	struct iphdr *ip, *quoted;
	struct icmphdr *icmp;
	void *data_end;

	if (bpf_xdp_adjust_tail(ctx, (int)(sizeof(*eth) + QUOTED4) - length))
		return XDP_DROP;
	if (bpf_xdp_load_bytes(ctx, 0, &before, sizeof(before)))
		return XDP_DROP;
	if (bpf_xdp_adjust_head(ctx, -(int)(sizeof(*ip) + sizeof(*icmp))))
		return XDP_DROP;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	ip = (void *)(eth + 1);
	icmp = (void *)(ip + 1);
	quoted = (void *)(icmp + 1);
	if ((void *)quoted + QUOTED4 > data_end)
		return XDP_DROP;
	*eth = before;
	swap_macs(eth);
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tos = 0;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*icmp) + QUOTED4);
	ip->id = 0;
	ip->frag_off = 0;
	ip->ttl = ECHO_TTL;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = quoted->daddr;
	ip->daddr = quoted->saddr;
	fill_ip_checksum(ip);
	icmp->type = ICMP_DEST_UNREACH;
	icmp->code = ICMP_FRAG_NEEDED;
	icmp->checksum = 0;
	icmp->un.gateway = 0;
	icmp->un.frag.mtu = bpf_htons(max_frame_bytes - sizeof(*eth));
	icmp->checksum =
	    csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)icmp, sizeof(*icmp) + QUOTED4, 0));
	return count(TOO_BIG_SENT, XDP_TX);
}

static __always_inline int send_too_big6(struct xdp_md *ctx)
{
	int length = bpf_xdp_get_buff_len(ctx);
	__be32 sum_over[10] = {};
	struct ipv6hdr *ip6, *quoted;
	struct ethhdr *eth, before;
	struct icmp6hdr *icmp;
	void *data_end;
	__u32 sum;

	if (bpf_xdp_adjust_tail(ctx, (int)(sizeof(*eth) + QUOTED6) - length))
		return XDP_DROP;
	if (bpf_xdp_load_bytes(ctx, 0, &before, sizeof(before)))
		return XDP_DROP;
	if (bpf_xdp_adjust_head(ctx, -(int)(sizeof(*ip6) + sizeof(*icmp))))
		return XDP_DROP;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	ip6 = (void *)(eth + 1);
	icmp = (void *)(ip6 + 1);
	quoted = (void *)(icmp + 1);
	if ((void *)quoted + QUOTED6 > data_end)
		return XDP_DROP;
	*eth = before;
	swap_macs(eth);
	ip6->version = 6;
	ip6->priority = 0;
	__builtin_memset(ip6->flow_lbl, 0, sizeof(ip6->flow_lbl));
	ip6->payload_len = bpf_htons(sizeof(*icmp) + QUOTED6);
	ip6->nexthdr = IPPROTO_ICMPV6;
	ip6->hop_limit = ECHO_TTL;
	ip6->saddr = quoted->daddr;
	ip6->daddr = quoted->saddr;
	icmp->icmp6_type = ICMPV6_PKT_TOOBIG;
	icmp->icmp6_code = 0;
	icmp->icmp6_cksum = 0;
	icmp->icmp6_mtu = bpf_htonl(max_frame_bytes - sizeof(*eth));
	__builtin_memcpy(sum_over, &ip6->saddr, 32);
	sum_over[8] = bpf_htonl(sizeof(*icmp) + QUOTED6);
	sum_over[9] = bpf_htonl(IPPROTO_ICMPV6);
	sum = bpf_csum_diff(NULL, 0, sum_over, sizeof(sum_over), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)icmp, sizeof(*icmp) + QUOTED6, sum);
	icmp->icmp6_cksum = csum_fold(sum);
	return count(TOO_BIG_SENT, XDP_TX);
}

#endif
