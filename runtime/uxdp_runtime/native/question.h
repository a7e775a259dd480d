/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What a worker asks the kernel, and what it answers: one page that both map. The worker fills it
 * in and runs bpf/ask.bpf.c, which calls the helper in the kernel and writes the answer. Included
 * by both sides, which bring the names of the integer types along.
 *
 * Reference: include/uapi/linux/bpf.h
 */
#ifndef UXDP_QUESTION_H
#define UXDP_QUESTION_H

#define UXDP_FIB_LOOKUP_FRAG_NEEDED 8 /* BPF_FIB_LKUP_RET_FRAG_NEEDED */
#define UXDP_FIB_TOT_LEN_MAX 0xffffu
#define UXDP_FIBS 3u

enum uxdp_question_kind {
	UXDP_ASK_NOTHING,
	UXDP_ASK_FIB,		  /* bpf_fib_lookup */
	UXDP_ASK_MTU,		  /* bpf_check_mtu */
	UXDP_ASK_SOCKET,	  /* a lookup: question.lookup */
	UXDP_ASK_GEN_SYNCOOKIE,	  /* bpf_tcp_gen_syncookie, on the socket that is looked up again */
	UXDP_ASK_CHECK_SYNCOOKIE, /* bpf_tcp_check_syncookie, the same */
	UXDP_ASK_RAW_GEN_IPV4,	  /* bpf_tcp_raw_gen_syncookie_ipv4 */
	UXDP_ASK_RAW_GEN_IPV6,
	UXDP_ASK_RAW_CHECK_IPV4,
	UXDP_ASK_RAW_CHECK_IPV6,
};

/* Bits of what the program in the kernel is loaded for. */
#define UXDP_MAY_ASK(kind) (1u << (kind))
#define UXDP_MAY_LOOK_UP(lookup) (1u << (16 + (lookup)))

enum uxdp_lookup {
	UXDP_LOOKUP_TCP, /* bpf_sk_lookup_tcp */
	UXDP_LOOKUP_UDP, /* bpf_sk_lookup_udp */
	UXDP_LOOKUP_SKC, /* bpf_skc_lookup_tcp */
};

/* struct bpf_fib_lookup */
struct uxdp_fib {
	u8 family;
	u8 l4_protocol;
	u16 sport;
	u16 dport;
	u16 tot_len; /* afterwards mtu_result */
	u32 ifindex;
	u32 tos; /* or flowinfo; afterwards rt_metric */
	u32 src[4];
	u32 dst[4];
	u32 tbid;   /* afterwards h_vlan_proto, h_vlan_TCI */
	u8 smac[6]; /* beforehand, mark */
	u8 dmac[6];
};

/* struct bpf_sock */
struct uxdp_sock {
	u32 bound_dev_if;
	u32 family;
	u32 type;
	u32 protocol;
	u32 mark;
	u32 priority;
	u32 src_ip4;
	u32 src_ip6[4];
	u32 src_port;
	u32 dst_port; /* big endian in the first two bytes, zeros behind */
	u32 dst_ip4;
	u32 dst_ip6[4];
	u32 state;
	s32 rx_queue_mapping;
};

/* What names a socket: all arguments of a lookup. */
struct uxdp_socket_name {
	u64 netns;
	u64 flags;
	u32 lookup; /* enum uxdp_lookup */
	u32 tuple_len;
	u32 tuple[9]; /* struct bpf_sock_tuple */
	u32 zero;
};

#define UXDP_TUPLE_IPV4_BYTES 12u
#define UXDP_TUPLE_IPV6_BYTES 36u
/* Headers are as long as TCP's at most; to the kernel all lengths beyond are alike. */
#define UXDP_HEADER_BYTES 64u

struct uxdp_question {
	u32 kind; /* enum uxdp_question_kind */
	u32 zero;
	s64 result; /* what the helper returned */

	/*
	 * UXDP_ASK_FIB: so many lookups, all with flags. Arguments go in, and come out as the
	 * helper leaves them; fib_results are what it returned.
	 */
	u64 flags;
	u32 num_fibs;
	u32 zero_too;
	struct uxdp_fib fibs[UXDP_FIBS];
	s64 fib_results[UXDP_FIBS];

	/*
	 * UXDP_ASK_MTU, with flags. frame_len is that of the program's frame. Only if knows_device,
	 * mtu and hard_header_len are the device's.
	 */
	u32 ifindex;
	u32 mtu_len;
	u32 len_diff;
	u32 frame_len;
	u32 knows_device;
	u32 mtu;
	u32 hard_header_len;

	/* UXDP_ASK_SOCKET; sock if found. Both UXDP_ASK_…_SYNCOOKIE need the name as well. */
	u32 found;
	struct uxdp_socket_name name;
	struct uxdp_sock sock;

	/* All questions about SYN cookies: the headers, and their lengths as the program gave them.
	 */
	u32 ip_len;
	u32 tcp_len;
	u8 ip[UXDP_HEADER_BYTES];
	u8 tcp[UXDP_HEADER_BYTES];
};

#endif
