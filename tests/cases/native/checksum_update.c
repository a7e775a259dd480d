// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What bpf_csum_diff is for: an IPv4 header's checksum after its address and TTL changed. */
#include "common.h"

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int checksum_update(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	__be32 before, after;

	if ((void *)(ip + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	before = ip->daddr;
	after = before ^ bpf_htonl(0x01020304);
	ip->daddr = after;
	ip->check = fold(bpf_csum_diff(&before, 4, &after, 4, (__u16)~ip->check));
	ip->ttl--;
	ip->check = 0;
	ip->check = fold(bpf_csum_diff(NULL, 0, (void *)ip, sizeof(*ip), 0));
	return XDP_TX;
}
