// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Arrays of maps: inner maps that are declared, and others, of other sizes; slots that are empty.
 */
#include "common.h"

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {.values = {[0] = &first, [2] = &second}};

SEC("xdp")
int map_in_map(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), slot = word % 9, key = word >> 8 & 63;
	__u64 value = word, *found;
	void *map = bpf_map_lookup_elem(&outer, &slot);

	note(0, slot * 2 + !map);
	if (!map)
		return XDP_DROP;
	found = bpf_map_lookup_elem(map, &key);
	note(1, found ? *found : 1);
	if (found)
		__sync_fetch_and_add(found, value);
	if (word & 0x10000)
		note(2, bpf_map_update_elem(map, &key, &value, word >> 17 & 3));
	if (!(word & 0x700000))
		note(3, bpf_map_delete_elem(map, &key));
	return XDP_PASS;
}
