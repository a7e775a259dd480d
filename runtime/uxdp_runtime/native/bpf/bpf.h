/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What our own BPF programs use of the kernel's ABI. As all of native/, they are built without any
 * system header.
 *
 * Reference: include/uapi/linux/bpf.h
 */
#ifndef UXDP_BPF_BPF_H
#define UXDP_BPF_BPF_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define __type(name, type) typeof(type) *name
#define __ksym __attribute__((section(".ksyms")))

/* In front of a frame of which hardware was asked, as the last thing of all; see native/abi.h. */
#define UXDP_METADATA_MARK 0x7875, 0x7064, 0x6d64

enum {
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_XSKMAP = 17,

	BPF_F_MMAPABLE = 1u << 10,

	XDP_ABORTED = 0,
	XDP_DROP = 1,
	XDP_PASS = 2,
	XDP_TX = 3,
	XDP_REDIRECT = 4,

	EINVAL = 22,
};

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 __u64 flags) = (void *)2;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static long (*const bpf_map_push_elem)(void *map, const void *value, __u64 flags) = (void *)87;
static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;
static long (*const bpf_map_peek_elem)(void *map, void *value) = (void *)89;
static long (*const bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)12;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const bpf_xdp_adjust_meta)(struct xdp_md *ctx, int delta) = (void *)54;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
static long (*const bpf_xdp_store_bytes)(struct xdp_md *ctx, __u32 offset, void *from,
					 __u32 len) = (void *)190;

static long (*const bpf_fib_lookup)(void *ctx, void *params, int len, __u32 flags) = (void *)69;
static void *(*const bpf_sk_lookup_tcp)(void *ctx, void *tuple, __u32 len, __u64 netns,
					__u64 flags) = (void *)84;
static void *(*const bpf_sk_lookup_udp)(void *ctx, void *tuple, __u32 len, __u64 netns,
					__u64 flags) = (void *)85;
static long (*const bpf_sk_release)(void *sk) = (void *)86;
static void *(*const bpf_skc_lookup_tcp)(void *ctx, void *tuple, __u32 len, __u64 netns,
					 __u64 flags) = (void *)99;
static long (*const bpf_tcp_check_syncookie)(void *sk, void *ip, __u32 ip_len, void *tcp,
					     __u32 tcp_len) = (void *)100;
static __s64 (*const bpf_tcp_gen_syncookie)(void *sk, void *ip, __u32 ip_len, void *tcp,
					    __u32 tcp_len) = (void *)110;
static long (*const bpf_check_mtu)(void *ctx, __u32 ifindex, __u32 *mtu_len, int len_diff,
				   __u64 flags) = (void *)163;
static __s64 (*const bpf_tcp_raw_gen_syncookie_ipv4)(void *ip, void *tcp,
						     __u32 tcp_len) = (void *)204;
static __s64 (*const bpf_tcp_raw_gen_syncookie_ipv6)(void *ip, void *tcp,
						     __u32 tcp_len) = (void *)205;
static long (*const bpf_tcp_raw_check_syncookie_ipv4)(void *ip, void *tcp) = (void *)206;
static long (*const bpf_tcp_raw_check_syncookie_ipv6)(void *ip, void *tcp) = (void *)207;

#endif
