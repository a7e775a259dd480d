// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Pointers to inner maps that come from one of two outer maps, or to a subprogram. */
#include "common.h"

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} declared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct inner);
} odd SEC(".maps") = {.values = {[1] = &declared}}, even SEC(".maps");

static __noinline int count(void *map, __u32 key)
{
	__u64 one = 1, *found = bpf_map_lookup_elem(map, &key);

	if (!found)
		return bpf_map_update_elem(map, &key, &one, BPF_ANY);
	*found += 1;
	return *found;
}

SEC("xdp")
int map_inner_choice(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), slot = word >> 1 & 1, key = word >> 2 & 31;
	void *outer = word & 1 ? (void *)&odd : (void *)&even, *map;
	__u64 value = word;

	map = bpf_map_lookup_elem(outer, &slot);
	if (!map)
		return XDP_DROP;
	if (word & 0x1000) {
		note(0, count(map, key));
	} else {
		map =
		    word & 1 ? bpf_map_lookup_elem(&odd, &slot) : bpf_map_lookup_elem(&even, &slot);
		if (map)
			note(1, bpf_map_update_elem(map, &key, &value, BPF_NOEXIST));
	}
	note(2, count(&declared, key));
	return XDP_PASS;
}
