// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LRU_HASH and LRU_PERCPU_HASH below their capacity, where eviction plays no part. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} lru SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} lru_percpu SEC(".maps");

SEC("xdp")
int map_lru(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), small = word % 23;
	__u64 key = word % 101, value = word, *found;

	found = bpf_map_lookup_elem(&lru, &key);
	note(0, found ? *found : 7);
	note(1, bpf_map_update_elem(&lru, &key, &value, (word >> 4) % 4));
	note(2, bpf_map_update_elem(&lru_percpu, &small, &word, BPF_ANY));
	if (word % 9 == 0)
		note(3, bpf_map_delete_elem(&lru, &key));
	return XDP_PASS;
}
