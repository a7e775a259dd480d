// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* ARRAY: indices in and out of range, every update flag, deletes are refused. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, __u32);
} array SEC(".maps");

SEC("xdp")
int map_array_bounds(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 9, *found;

	found = bpf_map_lookup_elem(&array, &key);
	note(0, found ? *found : 99);
	note(1, bpf_map_update_elem(&array, &key, &word, word % 5));
	note(2, bpf_map_delete_elem(&array, &key));
	key = -1;
	note(3, !bpf_map_lookup_elem(&array, &key));
	return XDP_PASS;
}
