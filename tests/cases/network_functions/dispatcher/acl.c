// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* acl: drops what comes from a prefix that is denied, and is not within a longer one that is
 * allowed. */
#include "dispatcher.h"

enum verdict {
	ACL_DENY,
	ACL_ALLOW,
};

struct acl_key {
	__u32 bits;
	__u16 vlan; /* network order */
	__u16 zero;
	struct in6_addr addr; /* IPv4 as ::ffff:a.b.c.d */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct acl_key);
	__type(value, __u8); /* enum verdict */
} acl_prefixes SEC(".maps");

const volatile __u8 acl_default = ACL_ALLOW;

int prog0(struct xdp_md *ctx)
{
	struct acl_key key = {.bits = 32 + 128};
	struct place place;
	__u8 *found;

	if (!ctx)
		return XDP_ABORTED;
	if (!find_network_header(ctx, &place))
		return XDP_PASS;
	if (place.proto == bpf_htons(ETH_P_IP)) {
		key.addr.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
		if (bpf_xdp_load_bytes(ctx, place.offset + offsetof(struct iphdr, saddr),
				       &key.addr.in6_u.u6_addr32[3], 4))
			return XDP_PASS;
	} else if (place.proto == bpf_htons(ETH_P_IPV6)) {
		if (bpf_xdp_load_bytes(ctx, place.offset + offsetof(struct ipv6hdr, saddr),
				       &key.addr, sizeof(key.addr)))
			return XDP_PASS;
	} else {
		return XDP_PASS;
	}
	key.vlan = bpf_htons(place.vlan);
	found = bpf_map_lookup_elem(&acl_prefixes, &key);
	if ((found ? *found : acl_default) == ACL_DENY) {
		count(ACL_DENIED);
		return XDP_DROP;
	}
	count(ACL_ALLOWED);
	return XDP_PASS;
}
