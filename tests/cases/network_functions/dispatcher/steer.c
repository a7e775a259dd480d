// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * steer: sends frames for certain stations out of certain ports, with another VLAN tag, or none.
 * Where the port's tag differs, the Ethernet header moves.
 */
#include "dispatcher.h"

#define STEER_KEEP 0xffff /* as the frame came */

struct steer_key {
	__u8 mac[ETH_ALEN];
	__u16 vlan;
};

struct steer_to {
	__u32 port; /* in ports */
	__u16 vlan; /* 0: without a tag */
	__u16 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct steer_key);
	__type(value, struct steer_to);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} ports SEC(".maps");

/* Move the addresses behind a tag that goes away. */
static __always_inline bool pop_tag(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data, before;
	struct vlan_tag *tag = (void *)(eth + 1);

	if ((void *)(tag + 1) > data_end)
		return false;
	before = *eth;
	before.h_proto = tag->next_proto;
	if (bpf_xdp_adjust_head(ctx, (int)sizeof(*tag)))
		return false;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > data_end)
		return false;
	*eth = before;
	return true;
}

static __always_inline bool push_tag(struct xdp_md *ctx, __u16 vlan)
{
	void *data_end;
	struct vlan_tag *tag;
	struct ethhdr *eth, before;

	if (bpf_xdp_load_bytes(ctx, 0, &before, sizeof(before)))
		return false;
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*tag)))
		return false;
	data_end = (void *)(long)ctx->data_end;
	eth = (void *)(long)ctx->data;
	tag = (void *)(eth + 1);
	if ((void *)(tag + 1) > data_end)
		return false;
	__builtin_memcpy(eth, &before, 2 * ETH_ALEN);
	eth->h_proto = bpf_htons(ETH_P_8021Q);
	tag->control = bpf_htons(vlan);
	tag->next_proto = before.h_proto;
	return true;
}

int prog2(struct xdp_md *ctx)
{
	struct steer_key key = {};
	struct steer_to *found, to;
	struct place place;

	if (!ctx)
		return XDP_ABORTED;
	if (!find_network_header(ctx, &place) ||
	    bpf_xdp_load_bytes(ctx, 0, key.mac, sizeof(key.mac)))
		return XDP_PASS;
	key.vlan = place.vlan;
	found = bpf_map_lookup_elem(&stations, &key);
	if (!found)
		return XDP_PASS;
	to = *found;
	if (to.vlan != STEER_KEEP && to.vlan != place.vlan) {
		if (place.vlan) {
			if (!pop_tag(ctx))
				return XDP_ABORTED;
			count(UNTAGGED);
		}
		if (to.vlan) {
			if (!push_tag(ctx, to.vlan))
				return XDP_ABORTED;
			count(TAGGED);
		}
	}
	count(STEERED);
	return bpf_redirect_map(&ports, to.port, XDP_DROP);
}
