// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Variable offsets into the frame: behind VLAN tags and IPv4 options, byte by byte. */
#include "common.h"

struct vlan {
	__be16 control, proto;
};

SEC("xdp")
int options(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data, *cursor = data + 14;
	struct iphdr *ip;
	__be16 proto;
	__u8 *byte;

	if (cursor > data_end)
		return XDP_DROP;
	proto = ((struct ethhdr *)data)->h_proto;
	for (int i = 0; i < 3; i++) {
		struct vlan *tag = cursor;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > data_end)
			return XDP_DROP;
		proto = tag->proto;
		cursor = tag + 1;
	}
	note(0, cursor - data);
	if (proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	ip = cursor;
	if ((void *)(ip + 1) > data_end || ip->ihl < 5)
		return XDP_DROP;
	byte = cursor + ip->ihl * 4;
	if ((void *)(byte + 4) > data_end)
		return XDP_DROP;
	note(1, byte[0] << 8 | byte[1]);
	note(2, ip->ihl);
	byte[3] ^= 0x55;
	return XDP_TX;
}
