// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_tcp_gen_syncookie, bpf_tcp_check_syncookie: the frame names a socket and holds the headers
 * with their lengths less one, and gets the result. test_kernel_state_agrees.py has the frames. */
#include "common.h"

#define HEADER_BYTES 64

enum { TCP, UDP, SKC };

struct request {
	struct ethhdr ethernet;
	__u8 check;
	__u8 kind;
	__u8 is_ipv6;
	__u8 ip_len;
	__u8 tcp_len;
	__u8 zero;
	struct bpf_sock_tuple tuple;
	__s64 result;
	__u8 ip[HEADER_BYTES];
	__u8 tcp[HEADER_BYTES];
} __attribute__((packed));

static __always_inline __s64 cookie(struct request *request, struct bpf_sock *sk)
{
	/* 1 to HEADER_BYTES, in a way that the verifier follows */
	__u64 ip_len = (request->ip_len & (HEADER_BYTES - 1)) + 1;
	__u64 tcp_len = (request->tcp_len & (HEADER_BYTES - 1)) + 1;
	__s64 result;

	if (request->check)
		result = bpf_tcp_check_syncookie(sk, (void *)request->ip, ip_len,
						 (void *)request->tcp, tcp_len);
	else
		result = bpf_tcp_gen_syncookie(sk, (void *)request->ip, ip_len,
					       (void *)request->tcp, tcp_len);
	bpf_sk_release(sk);
	return result;
}

SEC("xdp")
int syncookies(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;
	__u32 len;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	tuple = request->tuple;
	len = request->is_ipv6 ? sizeof(tuple.ipv6) : sizeof(tuple.ipv4);
	request->result = -2;
	if (request->kind == TCP) {
		sk = bpf_sk_lookup_tcp(ctx, &tuple, len, BPF_F_CURRENT_NETNS, 0);
		if (sk)
			request->result = cookie(request, sk);
	} else if (request->kind == UDP) {
		sk = bpf_sk_lookup_udp(ctx, &tuple, len, BPF_F_CURRENT_NETNS, 0);
		if (sk)
			request->result = cookie(request, sk);
	} else {
		sk = bpf_skc_lookup_tcp(ctx, &tuple, len, BPF_F_CURRENT_NETNS, 0);
		if (sk)
			request->result = cookie(request, sk);
	}
	return XDP_TX;
}
