// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Forwards IPv4 by the kernel's routes and neighbours; what is not routed is dropped, so that the
 * stack does not forward it. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

SEC("xdp")
int router(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct bpf_fib_lookup params = {.family = AF_INET};
	__u32 sum;

	if ((void *)(ip + 1) > data_end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ttl <= 1)
		return XDP_PASS;
	params.tos = ip->tos;
	params.l4_protocol = ip->protocol;
	params.tot_len = bpf_ntohs(ip->tot_len);
	params.ipv4_src = ip->saddr;
	params.ipv4_dst = ip->daddr;
	params.ifindex = ctx->ingress_ifindex;
	if (bpf_fib_lookup(ctx, &params, sizeof(params), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_DROP;
	sum = (__u32)ip->check + bpf_htons(0x0100);
	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
	__builtin_memcpy(ethernet->h_dest, params.dmac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, params.smac, ETH_ALEN);
	return bpf_redirect(params.ifindex, 0);
}

char _license[] SEC("license") = "Dual MIT/GPL";
