// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LPM_TRIE with IPv6 addresses: prefix lengths 0, 128 and beyond, nested prefixes. */
#include "common.h"

struct key {
	__u32 prefix_len;
	__u8 address[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 60);
	__type(key, struct key);
	__type(value, __u64);
} routes SEC(".maps");

SEC("xdp")
int map_lpm_ipv6(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct key key = {word % 4 ? (word >> 4) % 131 : (word >> 4) % 2 * 128,
			  {0x20, 1, 0xd, 0xb8, word % 2, [8] = word >> 16 & 3, [15] = word >> 24}};
	__u64 value = word, *found;

	note(0, bpf_map_update_elem(&routes, &key, &value, (word >> 12) % 4));
	key.prefix_len = 128;
	key.address[15]++;
	found = bpf_map_lookup_elem(&routes, &key);
	note(1, found ? *found : 1);
	key.prefix_len = word % 129;
	found = bpf_map_lookup_elem(&routes, &key);
	note(2, found ? *found : 2);
	if (word % 3 == 0)
		note(3, bpf_map_delete_elem(&routes, &key));
	key.prefix_len = 129;
	note(4, bpf_map_delete_elem(&routes, &key));
	note(5, !bpf_map_lookup_elem(&routes, &key));
	return found ? XDP_TX : XDP_PASS;
}
