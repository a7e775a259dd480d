// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* meter: counts packets per flow, one CPU for itself, and shows every so manieth of a flow to who
 * watches. */
#include "dispatcher.h"

#define SAMPLE_BYTES 64

struct meter_key {
	struct in6_addr source;
	struct in6_addr dest;
	__u16 vlan;
	__u8 proto;
	__u8 is_ipv6;
};

struct meter {
	__u64 packets;
	__u64 bytes;
	__u64 last_seen_ns;
};

struct sample {
	__u64 packets;
	__u32 len;
	__u32 captured;
	__u8 head[SAMPLE_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct meter_key);
	__type(value, struct meter);
} meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} samples SEC(".maps");

const volatile __u32 sample_every = 8;

static __always_inline void sample(struct xdp_md *ctx, __u64 packets, __u32 len)
{
	__u32 captured = len < SAMPLE_BYTES ? len : SAMPLE_BYTES;
	struct sample *sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);

	if (!sample)
		return;
	sample->packets = packets;
	sample->len = len;
	sample->captured = captured;
	__builtin_memset(sample->head, 0, sizeof(sample->head));
	barrier_var(captured);
	if (captured < 1 || captured > SAMPLE_BYTES ||
	    bpf_xdp_load_bytes(ctx, 0, sample->head, captured)) {
		bpf_ringbuf_discard(sample, 0);
		return;
	}
	bpf_ringbuf_submit(sample, 0);
	count(SAMPLED);
}

int prog1(struct xdp_md *ctx)
{
	struct meter_key key = {};
	struct meter fresh = {}, *meter;
	struct place place;
	struct ipv6hdr ip6;
	struct iphdr ip;
	__u32 len;

	if (!ctx)
		return XDP_ABORTED;
	if (!find_network_header(ctx, &place))
		return XDP_PASS;
	if (place.proto == bpf_htons(ETH_P_IP)) {
		if (bpf_xdp_load_bytes(ctx, place.offset, &ip, sizeof(ip)))
			return XDP_PASS;
		key.source.in6_u.u6_addr32[3] = ip.saddr;
		key.dest.in6_u.u6_addr32[3] = ip.daddr;
		key.proto = ip.protocol;
	} else if (place.proto == bpf_htons(ETH_P_IPV6)) {
		if (bpf_xdp_load_bytes(ctx, place.offset, &ip6, sizeof(ip6)))
			return XDP_PASS;
		key.source = ip6.saddr;
		key.dest = ip6.daddr;
		key.proto = ip6.nexthdr;
		key.is_ipv6 = 1;
	} else {
		return XDP_PASS;
	}
	key.vlan = place.vlan;
	len = bpf_xdp_get_buff_len(ctx);
	count(METERED);
	meter = bpf_map_lookup_elem(&meters, &key);
	if (!meter) {
		fresh.packets = 1;
		fresh.bytes = len;
		fresh.last_seen_ns = bpf_ktime_get_ns();
		bpf_map_update_elem(&meters, &key, &fresh, BPF_ANY);
		return XDP_PASS;
	}
	meter->packets++;
	meter->bytes += len;
	meter->last_seen_ns = bpf_ktime_get_ns();
	if (sample_every && meter->packets % sample_every == 0)
		sample(ctx, meter->packets, len);
	return XDP_PASS;
}
