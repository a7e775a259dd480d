// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * balancer: spreads connections to virtual services (VIPs) over real servers, by IPv4 and IPv6.
 *
 * A packet to a VIP is wrapped and sent to the gateway: into IPIP (RFC 2003, 2473), or into UDP
 * (GUE, variant 1 of draft-ietf-intarea-gue), whose source port tells flows apart. The real answers
 * the client itself. Which real it is:
 *
 *   1. of QUIC, the one that is named in the connection identifier (QUIC-LB, in plain text);
 *   2. the one that the source's prefix is routed to, where a VIP asks for that;
 *   3. the one that this CPU's connection table remembers, except for the first packet of a TCP
 *      connection. Each CPU has a table of its own, made for it by the control plane on its NUMA
 *      node, since RSS leads a connection to one CPU; other CPUs share a table;
 *   4. the one that the VIP's ring of consistent hashing has for the flow.
 *
 * ICMP errors that quote a real's answer go to that real. Packets that do not fit the network once
 * they are wrapped are answered with "too big", echo requests with echo replies. If new connections
 * come faster than max_new per window, they are not remembered: a flood of SYNs does not push those
 * out that are.
 *
 * The second program, decap, stands before the reals' stack and unwraps what the first one made.
 */
#include "answers.h"
#include "choice.h"
#include "wrapping.h"

static __always_inline struct vip *find_vip(const struct flow *flow, bool is_ipv6)
{
	struct vip_key key = {.port = flow->port16[1], .proto = flow->proto};
	struct vip *vip;

	if (is_ipv6)
		__builtin_memcpy(key.vipv6, flow->dstv6, sizeof(key.vipv6));
	else
		key.vip = flow->dst;
	vip = bpf_map_lookup_elem(&vips, &key);
	if (vip)
		return vip;
	key.port = 0;
	return bpf_map_lookup_elem(&vips, &key);
}

static __always_inline void add_to(struct stats *stats, __u32 bytes)
{
	stats->packets++;
	stats->bytes += bytes;
}

/* Make an error's packet one of the flow that it is about; a verdict, or -1 to go on. */
static __always_inline int read_error(struct xdp_md *ctx, void **l4, void *data_end, bool is_ipv6,
				      struct packet *packet)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	bool is_error;

	if (is_ipv6) {
		struct icmp6hdr *icmp = *l4;

		if ((void *)(icmp + 1) > data_end)
			return count(MALFORMED, XDP_DROP);
		if (icmp->icmp6_type == ICMPV6_ECHO_REQUEST)
			return send_echo_reply6(ctx, eth, (void *)(eth + 1), icmp);
		is_error = icmp->icmp6_type == ICMPV6_DEST_UNREACH ||
			   icmp->icmp6_type == ICMPV6_PKT_TOOBIG;
		*l4 = icmp + 1;
	} else {
		struct icmphdr *icmp = *l4;

		if ((void *)(icmp + 1) > data_end)
			return count(MALFORMED, XDP_DROP);
		if (icmp->type == ICMP_ECHO)
			return send_echo_reply4(ctx, eth, (void *)(eth + 1), icmp);
		is_error = icmp->type == ICMP_DEST_UNREACH;
		*l4 = icmp + 1;
	}
	if (!is_error)
		return count(NOT_OURS, XDP_PASS);
	packet->flags |= PACKET_QUOTED;
	*l4 = read_addresses(*l4, data_end, is_ipv6, true, packet);
	if (!*l4)
		return count(MALFORMED, XDP_DROP);
	count(ICMP_ERROR, 0);
	return -1;
}

static __always_inline int balance(struct xdp_md *ctx, void *data, void *data_end, bool is_ipv6)
{
	struct ethhdr *eth = data;
	struct packet packet = {};
	struct stats *of_vip, *of_real;
	__u32 index = 0, zero = 0, number;
	struct gateway *via;
	struct real *real;
	struct vip *vip;
	void *l4;
	int verdict;

	l4 = read_addresses(eth + 1, data_end, is_ipv6, false, &packet);
	if (!l4)
		return count(MALFORMED, XDP_DROP);
	if (packet.bytes > data_end - (void *)(eth + 1))
		return count(MALFORMED, XDP_DROP);
	if (is_ipv6) {
		if (packet.flow.proto == IPPROTO_FRAGMENT)
			return count(FRAGMENT, XDP_DROP);
	} else {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > data_end)
			return XDP_DROP;
		if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
			return count(FRAGMENT, XDP_DROP);
	}
	if (packet.flow.proto == (is_ipv6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		verdict = read_error(ctx, &l4, data_end, is_ipv6, &packet);
		if (verdict >= 0)
			return verdict;
	}
	if (!read_ports(l4, data_end, &packet))
		return count(NOT_OURS, XDP_PASS);
	vip = find_vip(&packet.flow, is_ipv6);
	if (!vip)
		return count(NOT_OURS, XDP_PASS);
	if (data_end - data > max_frame_bytes && !(packet.flags & PACKET_QUOTED))
		return is_ipv6 ? send_too_big6(ctx) : send_too_big4(ctx);

	via = bpf_map_lookup_elem(&gateway, &zero);
	if (!via)
		return XDP_ABORTED;
	number = vip->number;
	real = choose_real(&packet, vip, l4, data_end, is_ipv6, &index);
	if (!real)
		return count(NO_REAL, XDP_DROP);
	if (!wrap(ctx, &packet, real, via, is_ipv6))
		return XDP_ABORTED;
	of_vip = bpf_map_lookup_elem(&vip_stats, &number);
	if (of_vip)
		add_to(of_vip, packet.bytes);
	of_real = bpf_map_lookup_elem(&real_stats, &index);
	if (of_real)
		add_to(of_real, packet.bytes);
	return XDP_TX;
}

SEC("xdp")
int balancer(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > data_end)
		return count(MALFORMED, XDP_DROP);
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return balance(ctx, data, data_end, false);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return balance(ctx, data, data_end, true);
	return count(NOT_OURS, XDP_PASS);
}

/* Take the outer headers away, so many bytes; what is inside tells what it is. */
static __always_inline int unwrap(struct xdp_md *ctx, int bytes, enum counter which)
{
	struct ethhdr *eth, before;
	__u8 version;

	if (bpf_xdp_load_bytes(ctx, 0, &before, sizeof(before)) ||
	    bpf_xdp_load_bytes(ctx, sizeof(before) + bytes, &version, sizeof(version)))
		return count(MALFORMED, XDP_DROP);
	switch (version >> 4) {
	case 4:
		before.h_proto = bpf_htons(ETH_P_IP);
		break;
	case 6:
		before.h_proto = bpf_htons(ETH_P_IPV6);
		break;
	default:
		return count(MALFORMED, XDP_DROP);
	}
	if (bpf_xdp_adjust_head(ctx, bytes))
		return XDP_ABORTED;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*eth = before;
	return count(which, XDP_PASS);
}

static __always_inline bool is_gue(void *l4, void *data_end)
{
	struct udphdr *udp = l4;

	return (void *)(udp + 1) <= data_end && udp->dest == bpf_htons(GUE_PORT);
}

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct address address = {};
	__u32 bytes;
	__u8 proto;
	void *l4;

	if ((void *)(eth + 1) > data_end)
		return count(MALFORMED, XDP_DROP);
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);

		if ((void *)(ip + 1) > data_end || ip->ihl != 5)
			return count(NOT_OURS, XDP_PASS);
		address.addr = ip->daddr;
		proto = ip->protocol;
		bytes = sizeof(*ip);
		l4 = ip + 1;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = (void *)(eth + 1);

		if ((void *)(ip6 + 1) > data_end)
			return count(NOT_OURS, XDP_PASS);
		__builtin_memcpy(address.addrv6, &ip6->daddr, sizeof(address.addrv6));
		proto = ip6->nexthdr;
		bytes = sizeof(*ip6);
		l4 = ip6 + 1;
	} else {
		return count(NOT_OURS, XDP_PASS);
	}
	if (!bpf_map_lookup_elem(&decap_addresses, &address))
		return count(NOT_OURS, XDP_PASS);
	if (proto == IPPROTO_IPIP || proto == IPPROTO_IPV6)
		return unwrap(ctx, bytes, DECAPPED_IPIP);
	if (proto == IPPROTO_UDP && is_gue(l4, data_end))
		return unwrap(ctx, bytes + sizeof(struct udphdr), DECAPPED_GUE);
	return count(NOT_OURS, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
