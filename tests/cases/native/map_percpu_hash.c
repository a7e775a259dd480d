// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* PERCPU_HASH: gets full, with and without preallocation; an update keeps the other CPUs' values.
 */
#include "common.h"

struct key {
	__u8 byte[13];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 20);
	__type(key, struct key);
	__type(value, __u32);
} prepared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 20);
	__type(key, struct key);
	__type(value, struct key);
} on_demand SEC(".maps");

SEC("xdp")
int map_percpu_hash(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *number;
	struct key key = {{word % 33, [12] = 1}}, *found;

	note(0, bpf_map_update_elem(&prepared, &key, &word, (word >> 5) % 5));
	note(1, bpf_map_update_elem(&on_demand, &key, &key, (word >> 6) % 5));
	number = bpf_map_lookup_elem(&prepared, &key);
	if (number)
		*number += 5;
	found = bpf_map_lookup_elem(&on_demand, &key);
	if (found)
		found->byte[6] ^= word;
	note(2, !number << 1 | !found);
	key.byte[0] = (word >> 16) % 33;
	if (word % 3 == 0)
		note(3, bpf_map_delete_elem(&prepared, &key));
	if (word % 4 == 0)
		note(4, bpf_map_delete_elem(&on_demand, &key));
	return XDP_PASS;
}
