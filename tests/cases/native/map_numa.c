// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Maps that ask for memory of a NUMA node, of all types that may. */
#include "common.h"

#define MAP(kind, name)                                                                            \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(max_entries, 16);                                                           \
		__uint(map_flags, BPF_F_NUMA_NODE);                                                \
		__uint(numa_node, 0);                                                              \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")
#define PUSHED(kind, name, flags)                                                                  \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(max_entries, 16);                                                           \
		__uint(map_flags, BPF_F_NUMA_NODE | flags);                                        \
		__uint(numa_node, 0);                                                              \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(BPF_MAP_TYPE_ARRAY, array);
MAP(BPF_MAP_TYPE_HASH, hash);
MAP(BPF_MAP_TYPE_LRU_HASH, lru);
PUSHED(BPF_MAP_TYPE_QUEUE, queue, 0);
PUSHED(BPF_MAP_TYPE_STACK, stack, 0);
PUSHED(BPF_MAP_TYPE_BLOOM_FILTER, bloom, BPF_F_ZERO_SEED);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NUMA_NODE);
	__uint(numa_node, 0);
} ring SEC(".maps");

SEC("xdp")
int map_numa(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word & 7;
	__u64 value = word >> 3 & 63;

	note(0, bpf_map_update_elem(&array, &key, &value, BPF_ANY));
	note(1, bpf_map_update_elem(&hash, &key, &value, BPF_ANY));
	note(2, bpf_map_update_elem(&lru, &key, &value, BPF_ANY));
	note(3, bpf_map_push_elem(&queue, &value, BPF_ANY));
	note(4, bpf_map_push_elem(&stack, &value, BPF_EXIST));
	note(5, bpf_map_push_elem(&bloom, &value, BPF_ANY));
	value++;
	note(6, bpf_map_peek_elem(&bloom, &value));
	note(7, bpf_ringbuf_output(&ring, &value, sizeof(value), 0));
	return XDP_PASS;
}
