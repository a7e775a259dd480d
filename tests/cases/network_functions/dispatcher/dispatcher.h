/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the dispatcher and its programs share: headers, a parser of VLAN tags, and counters. */
#ifndef DISPATCHER_H
#define DISPATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum counter {
	ACL_DENIED,
	ACL_ALLOWED,
	METERED,
	SAMPLED,
	STEERED,
	UNTAGGED,
	TAGGED,
	NUM_COUNTERS,
};

struct vlan_tag {
	__be16 control;
	__be16 next_proto;
};

/* Where the network header is, and of what protocol. */
struct place {
	__u32 offset;
	__be16 proto;
	__u16 vlan; /* 0: no tag */
};

/* Counts one, of enum counter; in dispatcher.c. */
int count(__u32 which);

static __always_inline bool find_network_header(struct xdp_md *ctx, struct place *place)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct vlan_tag *tag = (void *)(eth + 1);

	if ((void *)(eth + 1) > data_end)
		return false;
	place->proto = eth->h_proto;
	place->offset = sizeof(*eth);
	place->vlan = 0;
	if (eth->h_proto == bpf_htons(ETH_P_8021Q)) {
		if ((void *)(tag + 1) > data_end)
			return false;
		place->proto = tag->next_proto;
		place->vlan = bpf_ntohs(tag->control) & 0xfff;
		place->offset += sizeof(*tag);
	}
	return true;
}

#endif
