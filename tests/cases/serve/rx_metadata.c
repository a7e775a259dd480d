// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What hardware knows of a frame (hash, time, VLAN tag), where there is no hardware: an error, and
 * variables are left alone. The kernel loads such a program for one device. */
#include "../native/kfuncs.h"

enum xdp_rss_hash_type { XDP_RSS_L3_IPV4 = 1 };

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash,
				    enum xdp_rss_hash_type *type) __ksym;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *proto, __u16 *tci) __ksym;

SEC("xdp")
int rx_metadata(struct xdp_md *ctx)
{
	enum xdp_rss_hash_type type = XDP_RSS_L3_IPV4;
	__u32 word = frame_word(ctx), hash = word;
	__u16 tci = word, proto = word >> 16;
	__u64 time = word;

	note(0, bpf_xdp_metadata_rx_timestamp(ctx, &time));
	note(1, bpf_xdp_metadata_rx_hash(ctx, &hash, &type));
	note(2, bpf_xdp_metadata_rx_vlan_tag(ctx, &proto, &tci));
	note(3, time + hash + type + proto + tci);
	return XDP_PASS;
}
