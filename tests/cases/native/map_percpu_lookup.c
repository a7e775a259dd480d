// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Values of other CPUs, of CPUs that there are not, of keys that there are not. */
#include "common.h"

#define MAP(kind, name)                                                                            \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(max_entries, 100);                                                          \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(BPF_MAP_TYPE_PERCPU_ARRAY, array);
MAP(BPF_MAP_TYPE_PERCPU_HASH, hash);
MAP(BPF_MAP_TYPE_LRU_PERCPU_HASH, lru);

static __always_inline void visit(void *map, __u32 which, __u32 key, __u32 word)
{
	__u64 value = word, *found;

	note(which, bpf_map_update_elem(map, &key, &value, word >> 20 & 3));
	for (__u32 cpu = 0; cpu < 2; cpu++) {
		key ^= word >> 10 & 1;
		found = bpf_map_lookup_percpu_elem(map, &key, cpu);
		note(which + 1, found ? *found : 1);
		if (found && word & 0x40000)
			*found += cpu + 5;
	}
	note(which + 2, !bpf_map_lookup_percpu_elem(map, &key, 1u << 20 | (word & 1)));
	note(which + 3, !bpf_map_lookup_percpu_elem(map, &key, -1));
}

SEC("xdp")
int map_percpu_lookup(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word & 127;

	visit(&array, 0, key, word);
	visit(&hash, 4, key & 63, word);
	visit(&lru, 8, key & 31, word);
	return XDP_PASS;
}
