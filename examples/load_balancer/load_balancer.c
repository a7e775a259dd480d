// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * load_balancer: a layer-4 load balancer with direct server return.
 *
 * A virtual service (VIP) is an IPv4 address, a port and TCP or UDP. A packet to it is wrapped into
 * an outer IPv4 header (IPIP, RFC 2003) addressed to one real server and sent to the gateway. The
 * real unwraps it and answers the client itself, so only requests pass through here.
 *
 * Who serves a new connection is read from the VIP's slice of the consistent-hash ring, which the
 * control plane fills (Maglev, rendezvous, ...): every balancer with the same ring and hash_seed
 * makes the same choice, and a changed ring moves few connections. The LRU table of connections
 * keeps even those where they are for as long as their real is in service.
 *
 * Passed to the host untouched: everything that is not a well-formed TCP or UDP packet over
 * untagged IPv4 to a VIP, and fragments, since only the first one carries the ports.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_VIPS 1024
#define MAX_REALS 4096
#define MAX_RING_SLOTS (1 << 20)
#define MAX_CONNECTIONS (1 << 20)

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define OUTER_TTL 64

/* Mixed into the flow hash; the same on all balancers that share a VIP. */
const volatile __u32 hash_seed = 0;
/* UDP has no end of connection: after this much silence a flow counts as a new one. */
const volatile __u64 udp_timeout_ns = 30000000000ULL;

struct config {
	__u8 gateway_mac[ETH_ALEN];
	__u8 local_mac[ETH_ALEN];
	__be32 local_addr; /* source of the outer header; 0: not configured, pass everything */
};

struct vip_key {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 zero;
};

enum vip_flags {
	VIP_SOURCE_AFFINITY = 1 << 0, /* all connections of one client address go to one real */
	VIP_STATELESS = 1 << 1,	      /* follow the ring alone; keep no connections */
};

struct vip {
	__u32 id;	  /* index into vip_stats */
	__u32 flags;	  /* enum vip_flags */
	__u32 ring_start; /* its slice of the ring */
	__u32 ring_slots;
};

struct vip_stats {
	__u64 packets;	 /* sent to a real */
	__u64 bytes;	 /* of these, without the outer header */
	__u64 scheduled; /* choices made by the ring */
	__u64 no_real;	 /* dropped: the ring's slot is empty or its real out of service */
	__u64 expired;	 /* dropped: TTL used up */
};

struct flow {
	__be32 client;
	__be32 vip;
	__be16 client_port;
	__be16 vip_port;
	__u8 proto;
	__u8 zero[3];
};

struct connection {
	__u64 last_seen_ns; /* UDP only */
	__u32 real;
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct vip_key);
	__type(value, struct vip);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_VIPS);
	__type(key, __u32);
	__type(value, struct vip_stats);
} vip_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_RING_SLOTS);
	__type(key, __u32);
	__type(value, __u32); /* index into reals */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REALS);
	__type(key, __u32);
	__type(value, __be32); /* address; 0: out of service */
} reals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_CONNECTIONS);
	__type(key, struct flow);
	__type(value, struct connection);
} connections SEC(".maps");

static __always_inline __sum16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Only TCP says that a connection starts. */
static __always_inline bool parse_flow(struct iphdr *ip, void *data_end, struct flow *flow,
				       bool *starts)
{
	__u32 header_len, len;
	void *l4;

	if ((void *)(ip + 1) > data_end || ip->version != 4)
		return false;
	header_len = ip->ihl * 4;
	len = bpf_ntohs(ip->tot_len);
	if (header_len < sizeof(*ip) || len > data_end - (void *)ip)
		return false;
	if (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET))
		return false;
	l4 = (void *)ip + header_len;

	if (ip->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;

		if ((void *)(tcp + 1) > data_end || len < header_len + sizeof(*tcp))
			return false;
		flow->client_port = tcp->source;
		flow->vip_port = tcp->dest;
		*starts = tcp->syn && !tcp->ack;
	} else if (ip->protocol == IPPROTO_UDP) {
		struct udphdr *udp = l4;

		if ((void *)(udp + 1) > data_end || len < header_len + sizeof(*udp))
			return false;
		flow->client_port = udp->source;
		flow->vip_port = udp->dest;
		*starts = false;
	} else {
		return false;
	}
	flow->client = ip->saddr;
	flow->vip = ip->daddr;
	flow->proto = ip->protocol;
	return true;
}

/* Multiplication carries differences upwards, folding brings them back down. */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL; /* 2^64 / golden ratio, odd */
	return hash ^ hash >> 32;
}

static __always_inline __u32 hash_flow(const struct flow *flow, __u32 flags)
{
	__u64 hash = mix(hash_seed, (__u64)flow->client << 32 | flow->vip);
	__u16 client_port = flags & VIP_SOURCE_AFFINITY ? 0 : flow->client_port;

	return mix(hash, (__u64)client_port << 32 | flow->vip_port << 8 | flow->proto);
}

static __always_inline __be32 real_addr(__u32 index)
{
	__be32 *addr = bpf_map_lookup_elem(&reals, &index);

	return addr ? *addr : 0;
}

/* The real that has this connection, or 0: unknown, timed out, or its real is out of service. */
static __always_inline __be32 known_real(const struct flow *flow, __u64 now)
{
	struct connection *known = bpf_map_lookup_elem(&connections, flow);

	if (!known)
		return 0;
	if (flow->proto == IPPROTO_UDP) {
		if (now >= known->last_seen_ns + udp_timeout_ns)
			return 0;
		known->last_seen_ns = now;
	}
	return real_addr(known->real);
}

/* The address of the real that serves this flow, or 0 if there is none. */
static __always_inline __be32 schedule(const struct vip *vip, const struct flow *flow, bool starts,
				       struct vip_stats *stats)
{
	bool stateless = vip->flags & VIP_STATELESS;
	struct connection fresh = {};
	__u32 slot, *index;
	__be32 addr;

	if (!stateless && flow->proto == IPPROTO_UDP)
		fresh.last_seen_ns = bpf_ktime_get_ns();

	/* A SYN never continues an old connection that used the same ports. */
	if (!stateless && !starts) {
		addr = known_real(flow, fresh.last_seen_ns);
		if (addr)
			return addr;
	}

	if (!vip->ring_slots)
		return 0;
	/* Scaling the hash to the slice by multiplication needs no division. */
	slot = vip->ring_start + ((__u64)hash_flow(flow, vip->flags) * vip->ring_slots >> 32);
	index = bpf_map_lookup_elem(&ring, &slot);
	if (!index)
		return 0;
	addr = real_addr(*index);
	if (!addr)
		return 0;

	stats->scheduled++;
	if (!stateless) {
		fresh.real = *index;
		bpf_map_update_elem(&connections, flow, &fresh, BPF_ANY);
	}
	return addr;
}

/* One hop less to live. The checksum follows as in RFC 1624, equation 3. */
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__be16 before = bpf_htons(ip->ttl << 8 | ip->protocol);
	__be16 after = bpf_htons((ip->ttl - 1) << 8 | ip->protocol);

	ip->check = csum_fold((__u16)~ip->check + (__u16)~before + after);
	ip->ttl--;
}

/* Put the outer headers in front of the packet. Moves the frame: earlier pointers are invalid. */
static __always_inline bool encapsulate(struct xdp_md *ctx, const struct config *conf, __be32 real)
{
	struct iphdr *outer, *inner;
	struct ethhdr *eth;
	void *data_end;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return false;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	outer = (void *)(eth + 1);
	inner = outer + 1;
	if ((void *)(inner + 1) > data_end)
		return false;

	__builtin_memcpy(eth->h_dest, conf->gateway_mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, conf->local_mac, ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_IP);

	decrement_ttl(inner);

	outer->version = 4;
	outer->ihl = sizeof(*outer) / 4;
	outer->tos = inner->tos;
	outer->tot_len = bpf_htons(bpf_ntohs(inner->tot_len) + sizeof(*outer));
	outer->id = 0; /* allowed for what is never fragmented (RFC 6864) */
	outer->frag_off = bpf_htons(IP_DF);
	outer->ttl = OUTER_TTL;
	outer->protocol = IPPROTO_IPIP;
	outer->check = 0;
	outer->saddr = conf->local_addr;
	outer->daddr = real;
	outer->check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)outer, sizeof(*outer), 0));
	return true;
}

SEC("xdp")
int load_balancer(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct vip_key service = {};
	struct vip_stats *stats;
	struct flow flow = {};
	struct config *conf;
	struct vip *vip;
	__u32 zero = 0;
	__be32 real;
	__u16 len;
	bool starts;

	if ((void *)(eth + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (!parse_flow(ip, data_end, &flow, &starts))
		return XDP_PASS;

	service.addr = flow.vip;
	service.port = flow.vip_port;
	service.proto = flow.proto;
	vip = bpf_map_lookup_elem(&vips, &service);
	if (!vip)
		return XDP_PASS;
	conf = bpf_map_lookup_elem(&config, &zero);
	if (!conf || !conf->local_addr)
		return XDP_PASS;
	stats = bpf_map_lookup_elem(&vip_stats, &vip->id);
	if (!stats)
		return XDP_ABORTED; /* the control plane gave out an id beyond MAX_VIPS */

	if (ip->ttl <= 1) {
		stats->expired++;
		return XDP_DROP;
	}
	real = schedule(vip, &flow, starts, stats);
	if (!real) {
		stats->no_real++;
		return XDP_DROP;
	}
	len = bpf_ntohs(ip->tot_len);
	if (!encapsulate(ctx, conf, real))
		return XDP_ABORTED; /* no headroom */

	stats->packets++;
	stats->bytes += len;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
