// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LRU_HASH with a list per CPU (BPF_F_NO_COMMON_LRU): updates with every flag, deletes, odd keys.
 */
#include "common.h"

struct key {
	__u8 byte[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(max_entries, 2048);
	__type(key, struct key);
	__type(value, __u32);
} per_cpu_lists SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(map_flags, BPF_F_ZERO_SEED);
	__uint(max_entries, 2048);
	__type(key, __u64);
	__type(value, struct key);
} seeded SEC(".maps");

SEC("xdp")
int map_lru_flags(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *found;
	struct key key = {{word % 61, 2, 3, 4, 5, 6, 7}};
	__u64 number = word % 47;

	note(0, bpf_map_update_elem(&per_cpu_lists, &key, &word, (word >> 5) % 6));
	found = bpf_map_lookup_elem(&per_cpu_lists, &key);
	if (found)
		*found += 1;
	note(1, bpf_map_update_elem(&seeded, &number, &key, (word >> 7) % 6));
	note(2, bpf_map_update_elem(&seeded, &number, &key, BPF_F_LOCK));
	if (word % 4 == 0)
		note(3, bpf_map_delete_elem(&per_cpu_lists, &key));
	if (word % 5 == 0)
		note(4, bpf_map_delete_elem(&seeded, &number));
	return found ? XDP_PASS : XDP_DROP;
}
