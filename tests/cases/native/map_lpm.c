// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LPM_TRIE: prefixes of all lengths come and go, the longest match wins. */
#include "common.h"

struct key {
	__u32 prefix_len;
	__u8 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 40);
	__type(key, struct key);
	__type(value, __u32);
} routes SEC(".maps");

SEC("xdp")
int map_lpm(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *found;
	struct key key = {word % 35, {10, word % 4, word >> 8, word >> 16}};

	note(0, bpf_map_update_elem(&routes, &key, &word, (word >> 3) % 4));
	key.prefix_len = 32;
	key.address[3] = 1;
	found = bpf_map_lookup_elem(&routes, &key);
	note(1, found ? *found : 1);
	key.prefix_len = word % 33;
	if (word % 4 == 0)
		note(2, bpf_map_delete_elem(&routes, &key));
	return found ? XDP_TX : XDP_PASS;
}
