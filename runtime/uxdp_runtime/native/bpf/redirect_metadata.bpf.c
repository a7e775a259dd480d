/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The program on a served interface (redirect.bpf.c), for network functions that ask for what
 * hardware knows of a frame: it asks the driver and puts the answers in front of the frame, where
 * the port finds them. It is loaded for one device, and only where the driver knows how to answer.
 *
 * References: Documentation/networking/xdp-rx-metadata.rst; net/core/xdp.c
 */
#define BEFORE_REDIRECT describe
#include "bpf.h"

enum xdp_rss_hash_type { XDP_RSS_L3_IPV4 = 1 };

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash,
				    enum xdp_rss_hash_type *type) __ksym;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __u16 *proto, __u16 *tci) __ksym;

/* struct uxdp_rx_metadata of native/abi.h; "mark" tells the port that it is there. */
struct rx_metadata {
	__u64 timestamp_ns;
	__u32 hash;
	__u32 hash_type;
	__u16 vlan_proto;
	__u16 vlan_tci;
	short timestamp_error;
	short hash_error;
	short vlan_error;
	__u16 mark[3];
};

_Static_assert(sizeof(struct rx_metadata) == 32, "a multiple of 4, as bpf_xdp_adjust_meta demands");

static void describe(struct xdp_md *ctx)
{
	struct rx_metadata known = {.mark = {UXDP_METADATA_MARK}};
	enum xdp_rss_hash_type type = 0;
	struct rx_metadata *place;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(known)))
		return;
	place = (void *)(long)ctx->data_meta;
	if ((void *)(place + 1) > (void *)(long)ctx->data)
		return;
	known.timestamp_error = bpf_xdp_metadata_rx_timestamp(ctx, &known.timestamp_ns);
	known.hash_error = bpf_xdp_metadata_rx_hash(ctx, &known.hash, &type);
	known.hash_type = type;
	known.vlan_error = bpf_xdp_metadata_rx_vlan_tag(ctx, &known.vlan_proto, &known.vlan_tci);
	*place = known;
}

#include "redirect.bpf.c"
