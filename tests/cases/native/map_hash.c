// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* HASH: lookups, updates with every flag, deletes, and a table that gets full. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

SEC("xdp")
int map_hash(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 53;
	__u64 value = word, *found;

	note(0, bpf_map_update_elem(&table, &key, &value, (word >> 8) % 5));
	found = bpf_map_lookup_elem(&table, &key);
	if (found)
		__sync_fetch_and_add(found, 3);
	note(1, !!found);
	if (word % 3 == 0) {
		key = (word >> 16) % 53;
		note(2, bpf_map_delete_elem(&table, &key));
	}
	return found ? XDP_PASS : XDP_DROP;
}
