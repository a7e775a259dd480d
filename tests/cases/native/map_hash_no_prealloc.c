// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* HASH with BPF_F_NO_PREALLOC and an odd key size. */
#include "common.h"

struct key {
	__u8 bytes[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16);
	__type(key, struct key);
	__type(value, struct key);
} table SEC(".maps");

SEC("xdp")
int map_hash_no_prealloc(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct key key = {{word % 29, 1, 2, 3, 4, 5, word % 2}}, *found;

	note(0, bpf_map_update_elem(&table, &key, &key, word % 3));
	found = bpf_map_lookup_elem(&table, &key);
	if (found)
		found->bytes[3] += word;
	if (word % 5 == 0)
		note(1, bpf_map_delete_elem(&table, &key));
	return XDP_PASS;
}
