// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LPM_TRIE with room for four: full, replaced, deleted; keys of 1 and of 256 bytes. */
#include "common.h"

struct small {
	__u32 prefix_len;
	__u8 data[1];
} __attribute__((packed));

struct wide {
	__u32 prefix_len;
	__u8 data[256];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4);
	__type(key, struct small);
	__type(value, __u8);
} bytes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4);
	__type(key, struct wide);
	__type(value, __u32);
} blobs SEC(".maps");

SEC("xdp")
int map_lpm_full(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *number;
	struct small small = {word % 9, {word >> 8}};
	struct wide wide = {word % 2049, {word >> 8 & 1, [200] = word >> 9 & 3}};
	__u8 value = word >> 16, *found;

	note(0, bpf_map_update_elem(&bytes, &small, &value, (word >> 4) % 3));
	small.prefix_len = 8;
	found = bpf_map_lookup_elem(&bytes, &small);
	note(1, found ? *found : 256);
	small.prefix_len = (word >> 20) % 9;
	note(2, bpf_map_delete_elem(&bytes, &small));
	note(3, bpf_map_update_elem(&blobs, &wide, &word, (word >> 4) % 3));
	wide.prefix_len = 2048;
	number = bpf_map_lookup_elem(&blobs, &wide);
	note(4, number ? *number : 0);
	wide.prefix_len = word % 2049;
	if (word & 0x10000)
		note(5, bpf_map_delete_elem(&blobs, &wide));
	return XDP_PASS;
}
