// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* LRU maps that are full: an update finds room, its key is there at once. Which key went is not
 * compared, so the values are not left in maps. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u64);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, __u64);
} percpu SEC(".maps");

__u64 number;

static long fill(__u32 index, void *unused)
{
	__u64 key = number++, value = key * 3, *found;

	note(0, bpf_map_update_elem(&table, &key, &value, BPF_NOEXIST));
	note(1, bpf_map_update_elem(&percpu, &key, &value, BPF_NOEXIST));
	found = bpf_map_lookup_elem(&table, &key);
	note(2, found ? *found : 1);
	found = bpf_map_lookup_elem(&percpu, &key);
	note(3, found ? *found : 2);
	note(4, bpf_map_update_elem(&table, &key, &value, BPF_NOEXIST));
	key = ~key;
	note(5, bpf_map_update_elem(&table, &key, &value, BPF_EXIST));
	return 0;
}

SEC("xdp")
int map_lru_evicts(struct xdp_md *ctx)
{
	note(6, bpf_loop(frame_word(ctx) % 8, fill, NULL, 0));
	return XDP_PASS;
}
