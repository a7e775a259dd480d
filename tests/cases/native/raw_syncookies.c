// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The four bpf_tcp_raw_…_syncookie_…: the frame holds the headers, and gets the result.
 * test_kernel_state_agrees.py has the frames. */
#include "common.h"
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define HEADER_BYTES 64

struct request {
	struct ethhdr ethernet;
	__u8 check;
	__u8 is_ipv6;
	__u8 tcp_len;
	__u8 zero;
	__s64 result;
	__u8 ip[HEADER_BYTES];
	__u8 tcp[HEADER_BYTES];
} __attribute__((packed));

SEC("xdp")
int raw_syncookies(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct ipv6hdr *ipv6;
	struct iphdr *ipv4;
	struct tcphdr *tcp;
	__u64 len;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	ipv4 = (void *)request->ip;
	ipv6 = (void *)request->ip;
	tcp = (void *)request->tcp;
	len = request->tcp_len;
	if (request->check)
		request->result = request->is_ipv6 ? bpf_tcp_raw_check_syncookie_ipv6(ipv6, tcp)
						   : bpf_tcp_raw_check_syncookie_ipv4(ipv4, tcp);
	else if (len <= HEADER_BYTES)
		request->result = request->is_ipv6 ? bpf_tcp_raw_gen_syncookie_ipv6(ipv6, tcp, len)
						   : bpf_tcp_raw_gen_syncookie_ipv4(ipv4, tcp, len);
	return XDP_TX;
}
