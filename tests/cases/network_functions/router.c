// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * router: forwards IPv4 and IPv6 by the kernel's own routes and neighbours, between VLANs, too.
 *
 * Addresses, routes, neighbours and MTUs are set up with ip(8) and a routing daemon, as for the
 * stack, on interfaces and their VLAN interfaces. The control plane writes down which of them are
 * served: in logical, from physical interface and tag to the interface with the address, and in
 * physical, the way back. The stack gets whatever this cannot do: ARP and neighbour discovery,
 * packets for the router itself, with options, at their last hop, too long, or to a neighbour that
 * is not resolved; it resolves the neighbour, or answers with the ICMP error.
 *
 * Where strict_source is set, packets that would not be answered by where they came from are
 * dropped (RFC 3704, strict reverse path forwarding).
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define FLOWINFO_BITS 0x0fffffff /* traffic class and flow label */
#define MAX_INTERFACES 1024
#define MAX_NEXT_HOPS 65536

const volatile bool strict_source = false;

enum counter {
	FORWARDED,
	TO_STACK,
	NOT_SERVED, /* the interface or tag it came by */
	NOT_ROUTED,
	NO_NEIGHBOUR,
	TOO_LONG,
	LAST_HOP,
	DISCARDED, /* blackhole, unreachable, prohibit */
	SPOOFED,
	TAG_ADDED,
	TAG_REMOVED,
	TAG_CHANGED,
	MALFORMED,
	NUM_COUNTERS,
};

struct port {
	__u32 ifindex;
	__u16 vlan; /* host order; 0: no tag */
	__u16 zero;
};

struct vlan_tag {
	__be16 control;
	__be16 next_proto;
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

/* Who packets were sent to. */
struct next_hop {
	__u32 ifindex;
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, struct port);
	__type(value, __u32);
} logical SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, struct port);
} physical SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, MAX_INTERFACES);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, MAX_NEXT_HOPS);
	__type(key, struct next_hop);
	__type(value, struct traffic);
} next_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline int count(enum counter which, int verdict)
{
	__u32 key = which;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	if (counter)
		(*counter)++;
	return verdict;
}

/* Fill in what a route depends on; a counter if the packet is not to be routed here, or -1. */
static __always_inline int read_ipv4(struct iphdr *ip, void *data_end, struct bpf_fib_lookup *fib)
{
	if ((void *)(ip + 1) > data_end || ip->version != 4)
		return MALFORMED;
	if (bpf_ntohs(ip->tot_len) < sizeof(*ip) || bpf_ntohs(ip->tot_len) > data_end - (void *)ip)
		return MALFORMED;
	if (ip->ihl != 5)
		return TO_STACK;
	if (ip->ttl <= 1)
		return LAST_HOP;
	fib->family = AF_INET;
	fib->tos = ip->tos & 0xfc; /* without ECN */
	fib->l4_protocol = ip->protocol;
	fib->tot_len = bpf_ntohs(ip->tot_len);
	fib->ipv4_src = ip->saddr;
	fib->ipv4_dst = ip->daddr;
	return -1;
}

static __always_inline int read_ipv6(struct ipv6hdr *ip6, void *data_end,
				     struct bpf_fib_lookup *fib)
{
	if ((void *)(ip6 + 1) > data_end || ip6->version != 6)
		return MALFORMED;
	if (bpf_ntohs(ip6->payload_len) > data_end - (void *)(ip6 + 1))
		return MALFORMED;
	/* Multicast and link-local addresses mean something here. */
	if (ip6->daddr.in6_u.u6_addr8[0] == 0xff ||
	    (ip6->daddr.in6_u.u6_addr8[0] == 0xfe && ip6->daddr.in6_u.u6_addr8[1] == 0x80))
		return TO_STACK;
	if (ip6->nexthdr == IPPROTO_HOPOPTS)
		return TO_STACK;
	if (ip6->hop_limit <= 1)
		return LAST_HOP;
	fib->family = AF_INET6;
	fib->flowinfo = *(__be32 *)ip6 & bpf_htonl(FLOWINFO_BITS);
	fib->l4_protocol = ip6->nexthdr;
	fib->tot_len = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
	__builtin_memcpy(fib->ipv6_src, &ip6->saddr, sizeof(fib->ipv6_src));
	__builtin_memcpy(fib->ipv6_dst, &ip6->daddr, sizeof(fib->ipv6_dst));
	return -1;
}

/* Whether the way back to the source is the way that the packet came. */
static __always_inline bool came_right(struct xdp_md *ctx, const struct bpf_fib_lookup *fib)
{
	struct bpf_fib_lookup back = {};
	int found;

	back.family = fib->family;
	back.l4_protocol = fib->l4_protocol;
	back.ifindex = fib->ifindex;
	if (fib->family == AF_INET) {
		back.tos = fib->tos;
		back.ipv4_src = fib->ipv4_dst;
		back.ipv4_dst = fib->ipv4_src;
	} else {
		__builtin_memcpy(back.ipv6_src, fib->ipv6_dst, sizeof(back.ipv6_src));
		__builtin_memcpy(back.ipv6_dst, fib->ipv6_src, sizeof(back.ipv6_dst));
	}
	found = bpf_fib_lookup(ctx, &back, sizeof(back), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	return back.ifindex == fib->ifindex;
}

/* One hop less. The checksum of IPv4 grows as the field shrinks (RFC 1141). */
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 check = ip->check + bpf_htons(0x0100);

	ip->check = check + (check >= 0xffff);
	ip->ttl--;
}

/*
 * Give the frame the tag of the port that it leaves by: from in, as it is, to out. Moves the frame
 * where a tag comes or goes. The ethertype behind the tag is proto.
 */
static __always_inline bool retag(struct xdp_md *ctx, __u16 in, __u16 out, __be16 proto)
{
	struct vlan_tag *tag;
	struct ethhdr *eth;
	void *data_end;
	int room = 0;

	if (in && !out) {
		room = sizeof(*tag);
		count(TAG_REMOVED, 0);
	} else if (!in && out) {
		room = -(int)sizeof(*tag);
		count(TAG_ADDED, 0);
	} else if (in != out) {
		count(TAG_CHANGED, 0);
	} else {
		return true;
	}
	if (room && bpf_xdp_adjust_head(ctx, room))
		return false;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	tag = (void *)(eth + 1);
	if ((void *)(tag + 1) > data_end)
		return false;
	eth->h_proto = out ? bpf_htons(ETH_P_8021Q) : proto;
	if (out) {
		tag->control = bpf_htons(out);
		tag->next_proto = proto;
	}
	return true;
}

static __always_inline void add_traffic(const struct bpf_fib_lookup *fib, __u32 bytes)
{
	struct traffic fresh = {.packets = 1, .bytes = bytes}, *traffic;
	struct next_hop hop = {.ifindex = fib->ifindex};

	__builtin_memcpy(hop.mac, fib->dmac, ETH_ALEN);
	traffic = bpf_map_lookup_elem(&next_hops, &hop);
	if (!traffic) {
		bpf_map_update_elem(&next_hops, &hop, &fresh, BPF_NOEXIST);
		return;
	}
	traffic->packets++;
	traffic->bytes += bytes;
}

static __always_inline int forward(struct xdp_md *ctx, const struct port *from, __be16 proto,
				   const struct bpf_fib_lookup *fib)
{
	__u32 ifindex = fib->ifindex;
	struct port *found, to;
	struct ethhdr *eth;
	void *data_end;

	found = bpf_map_lookup_elem(&physical, &ifindex);
	if (!found)
		return count(NOT_SERVED, XDP_PASS);
	to = *found;
	if (!retag(ctx, from->vlan, to.vlan, proto))
		return XDP_ABORTED;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > data_end)
		return XDP_ABORTED;
	__builtin_memcpy(eth->h_dest, fib->dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, fib->smac, ETH_ALEN);
	add_traffic(fib, data_end - (void *)eth);
	count(FORWARDED, 0);
	return bpf_redirect_map(&devices, to.ifindex, XDP_DROP);
}

static __always_inline int route(struct xdp_md *ctx, const struct port *from, void *l3,
				 void *data_end, __be16 proto)
{
	struct bpf_fib_lookup fib = {};
	__u32 *ifindex;
	int found;

	found = proto == bpf_htons(ETH_P_IP) ? read_ipv4(l3, data_end, &fib)
					     : read_ipv6(l3, data_end, &fib);
	if (found == MALFORMED)
		return count(MALFORMED, XDP_DROP);
	if (found >= 0)
		return count(found, XDP_PASS);
	ifindex = bpf_map_lookup_elem(&logical, from);
	if (!ifindex)
		return count(NOT_SERVED, XDP_PASS);
	fib.ifindex = *ifindex;
	if (strict_source && !came_right(ctx, &fib))
		return count(SPOOFED, XDP_DROP);

	found = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	switch (found) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		break;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
	case BPF_FIB_LKUP_RET_UNREACHABLE:
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return count(DISCARDED, XDP_DROP);
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return count(NO_NEIGHBOUR, XDP_PASS);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return count(TOO_LONG, XDP_PASS);
	case BPF_FIB_LKUP_RET_NOT_FWDED:
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		return count(NOT_ROUTED, XDP_PASS);
	default:
		return XDP_ABORTED;
	}
	if (proto == bpf_htons(ETH_P_IP))
		decrement_ttl(l3);
	else
		((struct ipv6hdr *)l3)->hop_limit--;
	return forward(ctx, from, proto, &fib);
}

SEC("xdp")
int router(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct port from = {.ifindex = ctx->ingress_ifindex};
	void *l3 = eth + 1;
	__be16 proto;

	if (l3 > data_end)
		return count(MALFORMED, XDP_DROP);
	proto = eth->h_proto;
	if (proto == bpf_htons(ETH_P_8021Q)) {
		struct vlan_tag *tag = l3;

		if ((void *)(tag + 1) > data_end)
			return count(MALFORMED, XDP_DROP);
		from.vlan = bpf_ntohs(tag->control) & 0xfff;
		proto = tag->next_proto;
		l3 = tag + 1;
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = l3;

		if ((void *)(ip + 1) > data_end)
			return count(MALFORMED, XDP_DROP);
		return route(ctx, &from, ip, data_end, proto);
	}
	if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip6 = l3;

		if ((void *)(ip6 + 1) > data_end)
			return count(MALFORMED, XDP_DROP);
		return route(ctx, &from, ip6, data_end, proto);
	}
	return count(TO_STACK, XDP_PASS);
}

char _license[] SEC("license") = "Dual MIT/GPL";
