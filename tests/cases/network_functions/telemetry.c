// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * telemetry: tells collectors what goes on, and lets everything pass.
 *
 *   events   a ring buffer: flows that begin and end, heavy ones, and names that are asked for;
 * each event in as many bytes as it has samples  perf buffers, one per CPU: every sample_every-th
 * packet, with its first bytes flows    packets, bytes and times of each flow; the round trip time
 * of a TCP handshake sketch   a count-min sketch of bytes per source: four rows of counters, of
 * which the smallest is the estimate; a source is heavy each time that it passes another
 * heavy_bytes sizes    a histogram of packet sizes, per protocol, by powers of two
 *
 * Readers are woken up when there is a batch for them: an event forces it once the ring buffer is
 * a quarter full, and otherwise leaves it to the next one. What finds no room is counted.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define RING_BYTES (1 << 16)
#define MAX_FLOWS (1 << 18)
#define MAX_NAME 64
#define MAX_SAMPLE 256
#define ROWS 4
#define COLUMNS 1024
#define SIZE_BUCKETS 16
#define DNS_HEADER 12

const volatile __u32 sample_every = 64;
const volatile __u32 sample_bytes = 128;
const volatile __u64 heavy_bytes = 1 << 20;

enum counter {
	PACKETS,
	NOT_IP,
	NOT_READ,
	FLOWS_BEGUN,
	FLOWS_ENDED,
	HEAVY_SOURCES,
	NAMES,
	EVENTS_LOST,
	SAMPLES,
	SAMPLES_LOST,
	WAKE_UPS,
	HANDSHAKES,
	NUM_COUNTERS,
};

enum kind {
	FLOW_BEGUN = 1,
	FLOW_ENDED,
	HEAVY_SOURCE,
	NAME_ASKED,
};

enum protocol {
	PROTOCOL_TCP,
	PROTOCOL_UDP,
	PROTOCOL_OTHER,
	NUM_PROTOCOLS,
};

struct key {
	struct in6_addr source; /* IPv4 as ::ffff:a.b.c.d */
	struct in6_addr dest;
	__be16 source_port;
	__be16 dest_port;
	__u8 proto;
	__u8 zero[3];
};

struct flow {
	__u64 packets;
	__u64 bytes;
	__u64 first_ns;
	__u64 last_ns;
	__u64 round_trip_ns; /* SYN to SYN-ACK, as seen here */
	__u32 flags;	     /* of TCP, all that were seen */
	__u32 zero;
};

struct event {
	__u32 kind;
	__u32 bytes; /* of all of it */
	__u64 time_ns;
	struct key key;
	__u32 zero;
};

struct flow_event {
	struct event head;
	struct flow flow;
};

struct heavy_event {
	struct event head;
	__u64 estimate;
};

struct name_event {
	struct event head;
	__u8 name[MAX_NAME]; /* as on the wire; there are head.bytes of it */
};

struct sample {
	__u64 time_ns;
	__u32 number;
	__u32 len;
	__u32 captured;
	__u32 zero;
};

struct row {
	__u64 bytes[COLUMNS];
};

struct histogram {
	__u64 buckets[SIZE_BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct key);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROWS);
	__type(key, __u32);
	__type(value, struct row);
} sketch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_PROTOCOLS);
	__type(key, __u32); /* enum protocol */
	__type(value, struct histogram);
} sizes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

/* Count one; how many there are now. */
static __always_inline __u64 count(enum counter which)
{
	__u32 key = which;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	return counter ? ++*counter : 0;
}

/* Whether readers are to be woken up for the event that is submitted now. */
static __always_inline __u64 wake_up(void)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < RING_BYTES / 4)
		return BPF_RB_NO_WAKEUP;
	count(WAKE_UPS);
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void fill_head(struct event *event, enum kind kind, __u32 bytes,
				      const struct key *key)
{
	event->kind = kind;
	event->bytes = bytes;
	event->time_ns = bpf_ktime_get_ns();
	event->key = *key;
	event->zero = 0;
}

static __always_inline void tell_flow(enum kind kind, const struct key *key,
				      const struct flow *flow)
{
	struct flow_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count(EVENTS_LOST);
		return;
	}
	fill_head(&event->head, kind, sizeof(*event), key);
	event->flow = *flow;
	bpf_ringbuf_submit(event, wake_up());
}

/* --- reading */

/* Read addresses and ports; the size of the headers up to the transport's, or 0. */
static __noinline int read_key(struct xdp_md *ctx, struct key *key)
{
	__u32 offset = sizeof(struct ethhdr);
	__be16 ports[2] = {}, proto;

	if (!key)
		return 0;
	if (bpf_xdp_load_bytes(ctx, offsetof(struct ethhdr, h_proto), &proto, sizeof(proto)))
		return 0;
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_xdp_load_bytes(ctx, offset, &ip, sizeof(ip)) || ip.ihl < 5)
			return 0;
		key->source.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		key->source.in6_u.u6_addr32[3] = ip.saddr;
		key->dest.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		key->dest.in6_u.u6_addr32[3] = ip.daddr;
		key->proto = ip.protocol;
		offset += ip.ihl * 4;
		if (ip.frag_off & bpf_htons(0x1fff))
			return offset; /* no ports */
	} else if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip6;

		if (bpf_xdp_load_bytes(ctx, offset, &ip6, sizeof(ip6)))
			return 0;
		key->source = ip6.saddr;
		key->dest = ip6.daddr;
		key->proto = ip6.nexthdr;
		offset += sizeof(ip6);
	} else {
		return -1;
	}
	if (key->proto == IPPROTO_TCP || key->proto == IPPROTO_UDP) {
		if (bpf_xdp_load_bytes(ctx, offset, ports, sizeof(ports)))
			return 0;
		key->source_port = ports[0];
		key->dest_port = ports[1];
	}
	return offset;
}

/* --- histograms and sketches */

static __always_inline __u32 log2_of(__u32 number)
{
	__u32 log = 0, shift;

	shift = (number > 0xff) << 3;
	number >>= shift;
	log |= shift;
	shift = (number > 0xf) << 2;
	number >>= shift;
	log |= shift;
	shift = (number > 0x3) << 1;
	number >>= shift;
	log |= shift;
	return (log | number >> 1) & (SIZE_BUCKETS - 1);
}

static __always_inline void add_size(__u8 proto, __u32 len)
{
	__u32 which = proto == IPPROTO_TCP   ? PROTOCOL_TCP
		      : proto == IPPROTO_UDP ? PROTOCOL_UDP
					     : PROTOCOL_OTHER;
	struct histogram *histogram = bpf_map_lookup_elem(&sizes, &which);

	if (histogram)
		histogram->buckets[log2_of(len)]++;
}

static __always_inline __u32 hash_source(const struct in6_addr *source, __u32 seed)
{
	__u32 hash = seed;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		hash = (hash ^ source->in6_u.u6_addr32[i]) * 0x9e3779b1;
		hash ^= hash >> 15;
	}
	return hash;
}

struct estimate {
	const struct in6_addr *source;
	__u64 bytes; /* the least of the rows */
	__u32 len;
};

static long add_to_row(__u32 index, struct estimate *estimate)
{
	struct row *row = bpf_map_lookup_elem(&sketch, &index);
	__u32 column;
	__u64 bytes;

	if (!row)
		return 1;
	column = hash_source(estimate->source, index * 0x85ebca6b + 1) % COLUMNS;
	bytes = row->bytes[column] += estimate->len;
	if (bytes < estimate->bytes)
		estimate->bytes = bytes;
	return 0;
}

static __always_inline void add_source(const struct key *key, __u32 len)
{
	struct estimate estimate = {.source = &key->source, .bytes = ~0ULL, .len = len};
	struct heavy_event *event;

	if (bpf_loop(ROWS, add_to_row, &estimate, 0) != ROWS)
		return;
	if (estimate.bytes / heavy_bytes == (estimate.bytes - len) / heavy_bytes)
		return;
	count(HEAVY_SOURCES);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count(EVENTS_LOST);
		return;
	}
	fill_head(&event->head, HEAVY_SOURCE, sizeof(*event), key);
	event->estimate = estimate.bytes;
	bpf_ringbuf_submit(event, wake_up());
}

/* --- flows, names, samples */

static __always_inline __u8 tcp_flags(struct xdp_md *ctx, __u32 offset)
{
	__u8 flags = 0;

	bpf_xdp_load_bytes(ctx, offset + 13, &flags, sizeof(flags));
	return flags;
}

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

static __always_inline void turn(struct key *key)
{
	struct in6_addr addr = key->source;
	__be16 port = key->source_port;

	key->source = key->dest;
	key->dest = addr;
	key->source_port = key->dest_port;
	key->dest_port = port;
}

/* A SYN-ACK tells how long the handshake's first half took. */
static __always_inline __u64 round_trip_of(struct key *key, __u64 now)
{
	struct flow *asked;
	__u64 took = 0;

	turn(key);
	asked = bpf_map_lookup_elem(&flows, key);
	turn(key);
	if (asked && asked->flags & TCP_SYN) {
		count(HANDSHAKES);
		took = now - asked->last_ns;
		asked->round_trip_ns = took;
	}
	return took;
}

static __always_inline void add_flow(struct xdp_md *ctx, struct key *key, __u32 offset, __u32 len)
{
	struct flow fresh = {.packets = 1, .bytes = len}, *flow;
	__u64 now = bpf_ktime_get_ns();
	__u32 flags = 0;

	if (key->proto == IPPROTO_TCP)
		flags = tcp_flags(ctx, offset);
	if ((flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
		fresh.round_trip_ns = round_trip_of(key, now);
	flow = bpf_map_lookup_elem(&flows, key);
	if (!flow) {
		fresh.first_ns = now;
		fresh.last_ns = now;
		fresh.flags = flags;
		if (bpf_map_update_elem(&flows, key, &fresh, BPF_NOEXIST))
			return;
		count(FLOWS_BEGUN);
		tell_flow(FLOW_BEGUN, key, &fresh);
		return;
	}
	__sync_fetch_and_add(&flow->packets, 1);
	__sync_fetch_and_add(&flow->bytes, len);
	flow->last_ns = now;
	flow->flags |= flags;
	if (flags & (TCP_FIN | TCP_RST)) {
		count(FLOWS_ENDED);
		tell_flow(FLOW_ENDED, key, flow);
		bpf_map_delete_elem(&flows, key);
	}
}

/* The name in a query, as far as it fits, in an event as long as that. */
static __always_inline void tell_name(struct xdp_md *ctx, const struct key *key, __u32 offset)
{
	__u32 start = offset + sizeof(struct udphdr) + DNS_HEADER,
	      bytes = bpf_xdp_get_buff_len(ctx);
	struct name_event event = {};
	__u32 size;

	if (bytes <= start)
		return;
	bytes -= start;
	if (bytes > MAX_NAME)
		bytes = MAX_NAME;
	barrier_var(bytes);
	if (!bytes || bpf_xdp_load_bytes(ctx, start, event.name, bytes))
		return;
	size = sizeof(event.head) + (bytes & (MAX_NAME * 2 - 1));
	if (size > sizeof(event))
		return;
	fill_head(&event.head, NAME_ASKED, size, key);
	count(NAMES);
	if (bpf_ringbuf_output(&events, &event, size, wake_up()))
		count(EVENTS_LOST);
}

static __always_inline void take_sample(struct xdp_md *ctx, __u64 number, __u32 len)
{
	struct sample sample = {.time_ns = bpf_ktime_get_ns(), .number = number, .len = len};
	__u64 captured = sample_bytes < MAX_SAMPLE ? sample_bytes : MAX_SAMPLE;

	if (captured > len)
		captured = len;
	sample.captured = captured;
	if (bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU | captured << 32, &sample,
				  sizeof(sample)))
		count(SAMPLES_LOST);
	else
		count(SAMPLES);
}

SEC("xdp")
int telemetry(struct xdp_md *ctx)
{
	__u32 len = bpf_xdp_get_buff_len(ctx);
	struct key key = {};
	__u64 number;
	int offset;

	number = count(PACKETS);
	if (sample_every && number % sample_every == 0)
		take_sample(ctx, number, len);
	offset = read_key(ctx, &key);
	if (offset <= 0) {
		count(offset ? NOT_IP : NOT_READ);
		return XDP_PASS;
	}
	add_size(key.proto, len);
	add_source(&key, len);
	add_flow(ctx, &key, offset, len);
	if (key.proto == IPPROTO_UDP && key.dest_port == bpf_htons(53))
		tell_name(ctx, &key, offset);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
