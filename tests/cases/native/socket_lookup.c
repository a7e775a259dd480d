// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_skc_lookup_tcp: the frame holds the arguments, and gets
 * all that a program may read of the socket. test_kernel_state_agrees.py has the sockets. */
#include "common.h"

enum { TCP, UDP, SKC };

struct request {
	struct ethhdr ethernet;
	__u16 kind;
	__u32 tuple_len;
	__u64 netns;
	__u64 flags;
	struct bpf_sock_tuple tuple;
	__u32 found;
	__u32 common[14];
	__u32 full[4];
	__u16 narrow[4];
} __attribute__((packed));

static __always_inline void copy_common(struct request *to, volatile struct bpf_sock *sk)
{
	to->common[0] = sk->bound_dev_if;
	to->common[1] = sk->family;
	to->common[2] = sk->src_ip4;
	to->common[3] = sk->src_ip6[0];
	to->common[4] = sk->src_ip6[3];
	to->common[5] = sk->src_port;
	to->common[6] = sk->dst_port;
	to->common[7] = sk->dst_ip4;
	to->common[8] = sk->dst_ip6[0];
	to->common[9] = sk->dst_ip6[3];
	to->common[10] = sk->state;
	to->common[11] = sk->rx_queue_mapping;
	to->common[12] = sk->src_ip6[1] ^ sk->src_ip6[2];
	to->common[13] = sk->dst_ip6[1] ^ sk->dst_ip6[2];
	to->narrow[0] = *(volatile __u8 *)&sk->family;
	to->narrow[1] = *(volatile __u16 *)&sk->src_port;
	to->narrow[2] = *((volatile __u8 *)&sk->src_ip4 + 3);
	to->narrow[3] = *((volatile __u8 *)&sk->dst_port + 1);
}

static __always_inline void copy_full(struct request *to, volatile struct bpf_sock *sk)
{
	copy_common(to, sk);
	to->full[0] = sk->type;
	to->full[1] = sk->protocol;
	to->full[2] = sk->mark;
	to->full[3] = sk->priority;
}

static __always_inline struct bpf_sock *look_up(struct xdp_md *ctx, struct request *request,
						struct bpf_sock_tuple *tuple, __u32 len)
{
	if (request->kind == TCP)
		return bpf_sk_lookup_tcp(ctx, tuple, len, request->netns, request->flags);
	if (request->kind == UDP)
		return bpf_sk_lookup_udp(ctx, tuple, len, request->netns, request->flags);
	return NULL;
}

static __always_inline struct bpf_sock *look_up_common(struct xdp_md *ctx, struct request *request,
						       struct bpf_sock_tuple *tuple, __u32 len)
{
	return bpf_skc_lookup_tcp(ctx, tuple, len, request->netns, request->flags);
}

#define TAKE(find, copy, len)                                                                      \
	do {                                                                                       \
		struct bpf_sock *sk = find(ctx, request, &tuple, len);                             \
                                                                                                   \
		if (sk) {                                                                          \
			request->found = 1;                                                        \
			copy(request, sk);                                                         \
			bpf_sk_release(sk);                                                        \
		}                                                                                  \
	} while (0)

SEC("xdp")
int socket_lookup(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct bpf_sock_tuple tuple;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	tuple = request->tuple;
	if (request->kind == SKC) {
		if (request->tuple_len == sizeof(tuple.ipv4))
			TAKE(look_up_common, copy_common, sizeof(tuple.ipv4));
		else
			TAKE(look_up_common, copy_common, sizeof(tuple.ipv6));
	} else if (request->tuple_len == sizeof(tuple.ipv4)) {
		TAKE(look_up, copy_full, sizeof(tuple.ipv4));
	} else if (request->tuple_len == sizeof(tuple.ipv6)) {
		TAKE(look_up, copy_full, sizeof(tuple.ipv6));
	} else {
		TAKE(look_up, copy_full, sizeof(tuple.ipv4) + 1);
	}
	return XDP_TX;
}
