// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LPM_TRIE: when the more specific of nested prefixes goes, the next one matches again. */
#include "common.h"

struct key {
	__u32 prefix_len;
	__u8 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 33);
	__type(key, struct key);
	__type(value, __u32);
} routes SEC(".maps");

SEC("xdp")
int map_lpm_nested(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *found;
	struct key key = {word % 33, {192, 0, 2, 1}}, host = {32, {192, 0, 2, 1}};

	if (word & 0x100)
		note(0, bpf_map_update_elem(&routes, &key, &key.prefix_len, BPF_ANY));
	else
		note(1, bpf_map_delete_elem(&routes, &key));
	found = bpf_map_lookup_elem(&routes, &host);
	note(2, found ? *found : 99);
	host.address[3] ^= 1 << (word >> 9 & 7);
	found = bpf_map_lookup_elem(&routes, &host);
	note(3, found ? *found : 99);
	host.address[word >> 12 & 3] ^= word >> 16;
	host.prefix_len = word >> 24 & 31;
	found = bpf_map_lookup_elem(&routes, &host);
	note(4, found ? *found : 99);
	return found ? XDP_PASS : XDP_DROP;
}
