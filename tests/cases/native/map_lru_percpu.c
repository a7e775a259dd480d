// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LRU_PERCPU_HASH: updates with every flag, deletes, values of 3 bytes. */
#include "common.h"

struct value {
	__u8 byte[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, struct value);
} common SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(max_entries, 2048);
	__type(key, __u32);
	__type(value, __u64);
} per_cpu_lists SEC(".maps");

SEC("xdp")
int map_lru_percpu(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 59;
	struct value value = {{word, word >> 8, word >> 16}}, *found;
	__u64 wide = word;

	note(0, bpf_map_update_elem(&common, &key, &value, (word >> 4) % 5));
	note(1, bpf_map_update_elem(&per_cpu_lists, &key, &wide, (word >> 7) % 5));
	found = bpf_map_lookup_elem(&common, &key);
	if (found)
		found->byte[1]++;
	note(2, !!found);
	key = (word >> 9) % 59;
	if (word % 5 == 0)
		note(3, bpf_map_delete_elem(&common, &key));
	if (word % 6 == 0)
		note(4, bpf_map_delete_elem(&per_cpu_lists, &key));
	return XDP_PASS;
}
