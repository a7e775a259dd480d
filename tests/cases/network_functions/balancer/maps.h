/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the control plane fills, and what it reads. */
#ifndef MAPS_H
#define MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* What a control plane for smaller machines may make smaller. */
#ifndef MAX_VIPS
#define MAX_VIPS 512
#endif
#ifndef RING_SIZE
#define RING_SIZE 65537 /* prime, as Maglev wants it */
#endif
#ifndef TABLE_SIZE
#define TABLE_SIZE (1 << 20)
#endif
#define MAX_REALS 4096
#define MAX_SERVER_IDS (1 << 16)
#define MAX_CPUS 128
#define MAX_PREFIXES (1 << 20)

#define GUE_PORT 9886
#define QUIC_PORT 443
#define OUTER_TTL 64
#define ECHO_TTL 64

/* Of a packet that is too big, so much is quoted behind its answer's ICMP header. */
#define QUOTED4 64
#define QUOTED6 256

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

/* The longest frame that still fits once it is wrapped. */
const volatile __u32 max_frame_bytes = 1514 - 56;
const volatile __u64 udp_timeout_ns = 30000000000ULL;
const volatile __u64 flood_window_ns = 1000000000ULL;
const volatile __u32 max_new = 125000;
/* Of QUIC's connection identifiers: the bits of the first byte that say that a real is named. */
const volatile __u8 quic_config = 0;

enum vip_flags {
	VIP_NO_SOURCE_PORT = 1 << 0, /* all connections of one address go to one real */
	VIP_NO_TABLE = 1 << 1,	     /* follow the ring alone */
	VIP_QUIC = 1 << 2,
	VIP_SOURCE_ROUTING = 1 << 3,
	VIP_DEST_PORT_ONLY = 1 << 4, /* one port goes to one real, whoever asks */
};

enum real_flags {
	REAL_IPV6 = 1 << 0,
	REAL_GUE = 1 << 1,
};

enum packet_flags {
	PACKET_SYN = 1 << 0,
	PACKET_QUOTED = 1 << 1, /* the flow is from an ICMP error */
};

enum counter {
	SENT_IPIP,
	SENT_GUE,
	TABLE_HIT,
	TABLE_MISS,
	TABLE_EXPIRED,
	SHARED_TABLE,
	NOT_REMEMBERED, /* too many new connections */
	QUIC_NAMED,
	QUIC_NOT_NAMED,
	QUIC_UNKNOWN,
	SOURCE_ROUTED,
	ICMP_ERROR,
	TOO_BIG_SENT,
	ECHO_SENT,
	NO_REAL,
	FRAGMENT,
	NOT_OURS,
	MALFORMED,
	DECAPPED_IPIP,
	DECAPPED_GUE,
	NUM_COUNTERS,
};

struct flow {
	union {
		__be32 src;
		__be32 srcv6[4];
	};
	union {
		__be32 dst;
		__be32 dstv6[4];
	};
	union {
		__u32 ports;
		__be16 port16[2];
	};
	__u8 proto;
	__u8 zero[3];
};

struct vip_key {
	union {
		__be32 vip;
		__be32 vipv6[4];
	};
	__be16 port; /* 0: all that have no VIP of their own */
	__u8 proto;
	__u8 zero;
};

struct vip {
	__u32 flags;
	__u32 number; /* of its ring, and in vip_stats */
};

struct real {
	union {
		__be32 dst;
		__be32 dstv6[4];
	};
	__u32 flags;
};

struct remembered {
	__u32 real;
	__u32 zero;
	__u64 last_seen_ns; /* of UDP */
};

struct stats {
	__u64 packets;
	__u64 bytes;
};

struct flood {
	__u64 window;
	__u64 connections;
};

struct gateway {
	__u8 mac[ETH_ALEN];
	__u8 zero[2];
	__be32 source;	    /* of outer IPv4 headers */
	__be32 sourcev6[4]; /* of outer IPv6 headers */
};

struct prefix4 {
	__u32 bits;
	__be32 addr;
};

struct prefix6 {
	__u32 bits;
	__be32 addr[4];
};

struct address {
	union {
		__be32 addr;
		__be32 addrv6[4];
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_VIPS);
	__type(key, struct vip_key);
	__type(value, struct vip);
} vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_VIPS *RING_SIZE);
	__type(key, __u32);
	__type(value, __u32); /* index into reals */
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_REALS);
	__type(key, __u32);
	__type(value, struct real); /* 0 is none */
} reals SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TABLE_SIZE);
	__type(key, struct flow);
	__type(value, struct remembered);
};

struct table shared_table SEC(".maps");
/* Tables of the first CPUs; the control plane makes those of others, or better ones. */
struct table table_of_cpu0 SEC(".maps");
struct table table_of_cpu1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_CPUS);
	__uint(key_size, sizeof(__u32));
	__array(values, struct table);
} tables SEC(".maps") = {
    .values = {&table_of_cpu0, &table_of_cpu1},
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVER_IDS);
	__type(key, __u32);
	__type(value, __u32); /* index into reals; 0: none */
} server_ids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, __u32); /* index into reals */
} source_routes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32);
} source_routes6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gateway);
} gateway SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct address);
	__type(value, __u32);
} decap_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_VIPS);
	__type(key, __u32);
	__type(value, struct stats);
} vip_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_REALS);
	__type(key, __u32);
	__type(value, struct stats);
} real_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood);
} floods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

#endif
