/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Lookups of sockets, and SYN cookies.
 *
 * What a lookup returns is a copy of the socket's fields as they were then, in memory of the
 * worker, with the socket's name: helpers that take the socket have the kernel look it up again. So
 * no reference to a socket of the kernel's outlives a question, and releasing one releases the
 * copy.
 *
 * References: net/core/filter.c, __bpf_sk_lookup(), bpf_tcp_check_syncookie() and the following
 */
#include "../ask.h"

UXDP_INLINE struct uxdp_socket *free_socket(void)
{
	for (u64 i = 0; i < uxdp_kernel.num_sockets; i++)
		if (!uxdp_kernel.sockets[i].held)
			return &uxdp_kernel.sockets[i];
	if (uxdp_kernel.num_sockets == UXDP_SOCKETS)
		return NULL;
	return &uxdp_kernel.sockets[uxdp_kernel.num_sockets++];
}

/* The socket that a program's pointer is to; NULL if it is to none that the program holds. */
UXDP_INLINE struct uxdp_socket *held_socket(const void *pointer)
{
	u64 offset = (u64)pointer - (u64)uxdp_kernel.sockets;
	u64 index = offset / sizeof(struct uxdp_socket);

	if (unlikely(index >= uxdp_kernel.num_sockets || offset % sizeof(struct uxdp_socket) ||
		     !uxdp_kernel.sockets[index].held))
		return NULL;
	return &uxdp_kernel.sockets[index];
}

UXDP_COLD void *look_up_socket(const struct uxdp_frame *frame, enum uxdp_lookup lookup,
			       const void *tuple, u32 len, u64 netns, u64 flags)
{
	struct uxdp_question *question = uxdp_kernel.question;
	struct uxdp_socket *socket;

	if (len != UXDP_TUPLE_IPV4_BYTES && len != UXDP_TUPLE_IPV6_BYTES)
		return NULL;
	question->name = (struct uxdp_socket_name){
	    .netns = netns, .flags = flags, .lookup = lookup, .tuple_len = len};
	__builtin_memcpy(question->name.tuple, tuple, len);
	if (!kernel_ask(UXDP_ASK_SOCKET, frame->ingress_ifindex, frame->rx_queue_index) ||
	    !question->found)
		return NULL;
	socket = free_socket();
	if (!socket)
		return NULL;
	socket->sock = question->sock;
	socket->name = question->name;
	socket->ifindex = frame->ingress_ifindex;
	socket->queue = frame->rx_queue_index;
	socket->held = true;
	return socket;
}

UXDP_HELPER void *uxdp_helper_sk_lookup_tcp(const struct uxdp_frame *frame, const void *tuple,
					    u64 len, u64 netns, u64 flags)
{
	return look_up_socket(frame, UXDP_LOOKUP_TCP, tuple, len, netns, flags);
}

UXDP_HELPER void *uxdp_helper_sk_lookup_udp(const struct uxdp_frame *frame, const void *tuple,
					    u64 len, u64 netns, u64 flags)
{
	return look_up_socket(frame, UXDP_LOOKUP_UDP, tuple, len, netns, flags);
}

UXDP_HELPER void *uxdp_helper_skc_lookup_tcp(const struct uxdp_frame *frame, const void *tuple,
					     u64 len, u64 netns, u64 flags)
{
	return look_up_socket(frame, UXDP_LOOKUP_SKC, tuple, len, netns, flags);
}

UXDP_HELPER s64 uxdp_helper_sk_release(void *pointer)
{
	struct uxdp_socket *socket = held_socket(pointer);

	if (likely(socket))
		socket->held = false;
	return 0;
}

/* No header is longer than UXDP_HEADER_BYTES - 4, so that longer ones are as wrong as this one. */
UXDP_INLINE u32 copy_header(u8 *to, const void *header, u32 len)
{
	u32 copied = len < UXDP_HEADER_BYTES ? len : UXDP_HEADER_BYTES;

	for (u32 i = 0; i < copied; i++)
		to[i] = ((const u8 *)header)[i];
	return copied;
}

UXDP_COLD s64 ask_syncookie(u32 kind, const void *pointer, const void *ip, u32 ip_len,
			    const void *tcp, u32 tcp_len)
{
	struct uxdp_question *question = uxdp_kernel.question;
	const struct uxdp_socket *socket = held_socket(pointer);

	if (!socket)
		return -EINVAL;
	question->name = socket->name;
	question->ip_len = copy_header(question->ip, ip, ip_len);
	question->tcp_len = copy_header(question->tcp, tcp, tcp_len);
	if (!kernel_ask(kind, socket->ifindex, socket->queue))
		return -EIO;
	/* One that is not there any more is one that does not listen: -EINVAL, too. */
	return question->result;
}

UXDP_HELPER s64 uxdp_helper_tcp_gen_syncookie(void *socket, const void *ip, u64 ip_len,
					      const void *tcp, u64 tcp_len)
{
	return ask_syncookie(UXDP_ASK_GEN_SYNCOOKIE, socket, ip, ip_len, tcp, tcp_len);
}

UXDP_HELPER s64 uxdp_helper_tcp_check_syncookie(void *socket, const void *ip, u64 ip_len,
						const void *tcp, u64 tcp_len)
{
	return ask_syncookie(UXDP_ASK_CHECK_SYNCOOKIE, socket, ip, ip_len, tcp, tcp_len);
}

#define IPV4_HEADER_BYTES 20u
#define IPV6_HEADER_BYTES 40u
#define TCP_HEADER_BYTES 20u

UXDP_COLD s64 ask_raw_syncookie(u32 kind, const void *ip, u32 ip_len, const void *tcp, u32 tcp_len)
{
	struct uxdp_question *question = uxdp_kernel.question;

	question->ip_len = copy_header(question->ip, ip, ip_len);
	question->tcp_len = copy_header(question->tcp, tcp, tcp_len);
	return kernel_ask(kind, 0, 0) ? question->result : -EIO;
}

UXDP_HELPER s64 uxdp_helper_tcp_raw_gen_syncookie_ipv4(const void *ip, const void *tcp, u64 tcp_len)
{
	return ask_raw_syncookie(UXDP_ASK_RAW_GEN_IPV4, ip, IPV4_HEADER_BYTES, tcp, tcp_len);
}

UXDP_HELPER s64 uxdp_helper_tcp_raw_gen_syncookie_ipv6(const void *ip, const void *tcp, u64 tcp_len)
{
	return ask_raw_syncookie(UXDP_ASK_RAW_GEN_IPV6, ip, IPV6_HEADER_BYTES, tcp, tcp_len);
}

UXDP_HELPER s64 uxdp_helper_tcp_raw_check_syncookie_ipv4(const void *ip, const void *tcp)
{
	return ask_raw_syncookie(UXDP_ASK_RAW_CHECK_IPV4, ip, IPV4_HEADER_BYTES, tcp,
				 TCP_HEADER_BYTES);
}

UXDP_HELPER s64 uxdp_helper_tcp_raw_check_syncookie_ipv6(const void *ip, const void *tcp)
{
	return ask_raw_syncookie(UXDP_ASK_RAW_CHECK_IPV6, ip, IPV6_HEADER_BYTES, tcp,
				 TCP_HEADER_BYTES);
}
