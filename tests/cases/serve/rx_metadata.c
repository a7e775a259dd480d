// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What hardware knows of a frame of IPv4 (hash, time, VLAN tag); where it knows nothing there is an
 * error, and variables are left alone. The kernel loads such a program for one device. */
#include "../native/kfuncs.h"

enum xdp_rss_hash_type { XDP_RSS_L3_IPV4 = 1 };

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash,
				    enum xdp_rss_hash_type *type) __ksym;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *proto, __u16 *tci) __ksym;

SEC("xdp")
int rx_metadata(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	enum xdp_rss_hash_type type = XDP_RSS_L3_IPV4;
	__u32 word = frame_word(ctx), hash = word;
	__u16 tci = word, proto = word >> 16;
	__u64 time = word, *count;
	__u32 last = 63;
	int error;

	if ((void *)(eth + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	note(0, bpf_xdp_metadata_rx_timestamp(ctx, &time));
	note(1, bpf_xdp_metadata_rx_hash(ctx, &hash, &type));
	error = bpf_xdp_metadata_rx_vlan_tag(ctx, &proto, &tci);
	note(2, error);
	/* A veth makes tci 0 if there is no tag. */
	note(3, time + hash + type + proto + (error ? 0 : tci));
	count = bpf_map_lookup_elem(&results, &last);
	if (count)
		__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}
