// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A map that is chosen at run time: the helper gets one of two. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} odd SEC(".maps"), even SEC(".maps");

SEC("xdp")
int map_choice(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 40;
	__u64 value = word, *found;
	void *map = word & 0x100 ? (void *)&odd : (void *)&even;

	found = bpf_map_lookup_elem(map, &key);
	if (found)
		*found += value;
	else
		note(0, bpf_map_update_elem(map, &key, &value, BPF_ANY));
	return XDP_PASS;
}
