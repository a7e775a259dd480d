/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Asks the kernel what native code cannot know: its routes, neighbours, devices and sockets, and
 * the secret of its SYN cookies. Run by BPF_PROG_TEST_RUN in the worker's network namespace; the
 * question is in the page that both map, and so is the answer.
 *
 * References: net/core/filter.c, bpf_xdp_fib_lookup(), bpf_xdp_check_mtu(), __bpf_skc_lookup()
 */
#include "bpf.h"

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef int s32;
typedef long long s64;
#include "../question.h"

#define INLINE static inline __attribute__((always_inline))

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct uxdp_question);
} questions SEC(".maps");

/* What the network function may ask: UXDP_MAY_ASK, UXDP_MAY_LOOK_UP. The verifier does not look at
 * the rest, so that a kernel without some of these helpers takes the program, too. */
const volatile __u32 may = 0;

#define ASKED(what) (may & UXDP_MAY_ASK(what) && q->kind == (what))
#define LOOKS_UP(what) (may & UXDP_MAY_LOOK_UP(what) && name->lookup == (what))

INLINE void ask_fib(struct xdp_md *ctx, struct uxdp_question *q)
{
	for (u32 i = 0; i < UXDP_FIBS && i < q->num_fibs; i++)
		q->fib_results[i] = bpf_fib_lookup(ctx, &q->fibs[i], sizeof(q->fibs[i]), q->flags);
}

/*
 * The length of the program's frame is not this one's; the difference goes into len_diff, which is
 * added to it. With a frame's length alone the kernel compares with the device's MTU and the length
 * of its link header, so that the latter can be found by trying.
 */
INLINE void ask_mtu(struct xdp_md *ctx, struct uxdp_question *q)
{
	u32 own_len = ctx->data_end - ctx->data;
	u32 len = q->mtu_len, mtu = 0, found = 0;

	q->knows_device = 0;
	q->result = bpf_check_mtu(ctx, q->ifindex, &len,
				  q->len_diff + (len ? 0 : q->frame_len - own_len), q->flags);
	q->mtu_len = len;
	if (q->result < 0 || bpf_check_mtu(ctx, q->ifindex, &mtu, 0, 0) < 0)
		return;
	for (u32 bit = 1u << 15; bit; bit >>= 1) {
		u32 again = 0;
		s32 longer = mtu + (found | bit) - own_len;

		if (bpf_check_mtu(ctx, q->ifindex, &again, longer, 0) == 0)
			found |= bit;
	}
	q->mtu = mtu;
	q->hard_header_len = found;
	/* In between, sums could overflow. */
	q->knows_device = mtu < 1u << 30;
}

/* Fields of a socket, and of what is not one yet or not any more. */
#define COPY_COMMON(to, sk)                                                                        \
	do {                                                                                       \
		(to)->bound_dev_if = (sk)->bound_dev_if;                                           \
		(to)->family = (sk)->family;                                                       \
		(to)->src_ip4 = (sk)->src_ip4;                                                     \
		(to)->src_port = (sk)->src_port;                                                   \
		(to)->dst_port = (sk)->dst_port;                                                   \
		(to)->dst_ip4 = (sk)->dst_ip4;                                                     \
		(to)->state = (sk)->state;                                                         \
		(to)->rx_queue_mapping = (sk)->rx_queue_mapping;                                   \
		_Pragma("unroll") for (int i = 0; i < 4; i++)                                      \
		{                                                                                  \
			(to)->src_ip6[i] = (sk)->src_ip6[i];                                       \
			(to)->dst_ip6[i] = (sk)->dst_ip6[i];                                       \
		}                                                                                  \
	} while (0)

INLINE void copy_socket(struct uxdp_sock *to, volatile struct uxdp_sock *sk)
{
	COPY_COMMON(to, sk);
	to->type = sk->type;
	to->protocol = sk->protocol;
	to->mark = sk->mark;
	to->priority = sk->priority;
}

INLINE void copy_common(struct uxdp_sock *to, volatile struct uxdp_sock *sk)
{
	COPY_COMMON(to, sk);
	to->type = to->protocol = to->mark = to->priority = 0;
}

/* Do what is asked with a socket that was found, and give it back. */
INLINE void use_socket(struct uxdp_question *q, void *sk,
		       void (*copy)(struct uxdp_sock *to, volatile struct uxdp_sock *sk))
{
	u32 ip_len = q->ip_len, tcp_len = q->tcp_len;

	if (!sk)
		return;
	q->found = 1;
	if (ASKED(UXDP_ASK_SOCKET))
		copy(&q->sock, sk);
	else if (ip_len && ip_len <= UXDP_HEADER_BYTES && tcp_len && tcp_len <= UXDP_HEADER_BYTES) {
		if (ASKED(UXDP_ASK_GEN_SYNCOOKIE))
			q->result = bpf_tcp_gen_syncookie(sk, q->ip, ip_len, q->tcp, tcp_len);
		else if (ASKED(UXDP_ASK_CHECK_SYNCOOKIE))
			q->result = bpf_tcp_check_syncookie(sk, q->ip, ip_len, q->tcp, tcp_len);
	}
	bpf_sk_release(sk);
}

INLINE void ask_socket(struct xdp_md *ctx, struct uxdp_question *q)
{
	struct uxdp_socket_name *name = &q->name;
	u32 len = name->tuple_len;
	void *sk;

	q->found = 0;
	q->result = -EINVAL;
	if (len < UXDP_TUPLE_IPV4_BYTES || len > UXDP_TUPLE_IPV6_BYTES)
		return;
	if (LOOKS_UP(UXDP_LOOKUP_TCP)) {
		sk = bpf_sk_lookup_tcp(ctx, name->tuple, len, name->netns, name->flags);
		use_socket(q, sk, copy_socket);
	} else if (LOOKS_UP(UXDP_LOOKUP_UDP)) {
		sk = bpf_sk_lookup_udp(ctx, name->tuple, len, name->netns, name->flags);
		use_socket(q, sk, copy_socket);
	} else if (LOOKS_UP(UXDP_LOOKUP_SKC)) {
		sk = bpf_skc_lookup_tcp(ctx, name->tuple, len, name->netns, name->flags);
		use_socket(q, sk, copy_common);
	}
}

INLINE s64 raw_syncookie(struct uxdp_question *q)
{
	u32 tcp_len = q->tcp_len;

	if (ASKED(UXDP_ASK_RAW_CHECK_IPV4))
		return bpf_tcp_raw_check_syncookie_ipv4(q->ip, q->tcp);
	if (ASKED(UXDP_ASK_RAW_CHECK_IPV6))
		return bpf_tcp_raw_check_syncookie_ipv6(q->ip, q->tcp);
	if (tcp_len > UXDP_HEADER_BYTES)
		return -EINVAL;
	if (ASKED(UXDP_ASK_RAW_GEN_IPV4))
		return bpf_tcp_raw_gen_syncookie_ipv4(q->ip, q->tcp, tcp_len);
	if (ASKED(UXDP_ASK_RAW_GEN_IPV6))
		return bpf_tcp_raw_gen_syncookie_ipv6(q->ip, q->tcp, tcp_len);
	return -EINVAL;
}

SEC("xdp")
int ask(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct uxdp_question *q = bpf_map_lookup_elem(&questions, &zero);

	if (!q)
		return XDP_ABORTED;
	if (ASKED(UXDP_ASK_FIB))
		ask_fib(ctx, q);
	else if (ASKED(UXDP_ASK_MTU))
		ask_mtu(ctx, q);
	else if (ASKED(UXDP_ASK_SOCKET) || ASKED(UXDP_ASK_GEN_SYNCOOKIE) ||
		 ASKED(UXDP_ASK_CHECK_SYNCOOKIE))
		ask_socket(ctx, q);
	else if (q->kind >= UXDP_ASK_RAW_GEN_IPV4)
		q->result = raw_syncookie(q);
	else
		return XDP_ABORTED;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
