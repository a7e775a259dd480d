// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * l2_swap: send every unicast frame back to its sender.
 *
 * The smallest network function that transmits, hence the baseline of the others: what it costs is
 * the port's cost. Group-addressed frames (broadcast, multicast) go to the host, since a group
 * address may not be a source address (IEEE 802.3) and so that ARP keeps working.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#define ETH_GROUP_BIT 0x01

SEC("xdp")
int l2_swap(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	unsigned char sender[ETH_ALEN];

	if ((void *)(eth + 1) > data_end)
		return XDP_DROP;
	if (eth->h_dest[0] & ETH_GROUP_BIT)
		return XDP_PASS;

	__builtin_memcpy(sender, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, sender, ETH_ALEN);
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
