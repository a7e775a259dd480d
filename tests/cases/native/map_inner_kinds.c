// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Hashes of maps, and inner maps of every type; arrays that may differ in size and such that may
 * not. */
#include "common.h"

#define INNER(name, kind, flags, key_type, value_type, entries)                                    \
	struct name {                                                                              \
		__uint(type, kind);                                                                \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, flags);                                                          \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
	}
#define OUTER(name, inner)                                                                         \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);                                           \
		__uint(max_entries, 4);                                                            \
		__type(key, __u32);                                                                \
		__array(values, struct inner);                                                     \
	} name SEC(".maps")

struct prefix {
	__u32 bits;
	__u32 word;
};

INNER(array, BPF_MAP_TYPE_ARRAY, 0, __u32, __u64, 8);
INNER(sized_array, BPF_MAP_TYPE_ARRAY, BPF_F_INNER_MAP, __u32, __u64, 8);
INNER(cpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, 0, __u32, __u64, 8);
INNER(cpu_hash, BPF_MAP_TYPE_PERCPU_HASH, 0, __u32, __u64, 8);
INNER(lru, BPF_MAP_TYPE_LRU_HASH, 0, __u32, __u64, 1000);
INNER(cpu_lru, BPF_MAP_TYPE_LRU_PERCPU_HASH, 0, __u32, __u64, 1000);
INNER(trie, BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC, struct prefix, __u64, 8);

OUTER(arrays, array);
OUTER(sized_arrays, sized_array);
OUTER(cpu_arrays, cpu_array);
OUTER(cpu_hashes, cpu_hash);
OUTER(lrus, lru);
OUTER(cpu_lrus, cpu_lru);
OUTER(tries, trie);

static __always_inline void visit(void *outer, __u32 which, __u32 slot, void *key, __u64 value,
				  __u64 flags)
{
	void *map = bpf_map_lookup_elem(outer, &slot);
	__u64 *found;

	if (!map)
		return;
	found = bpf_map_lookup_elem(map, key);
	note(which, found ? *found : 1);
	if (found)
		*found += value;
	else
		note(which + 1, bpf_map_update_elem(map, key, &value, flags));
}

SEC("xdp")
int map_inner_kinds(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), slot = word & 3, key = word >> 2 & 15, flags = word >> 6 & 3;
	struct prefix prefix = {.bits = 8 * (word >> 8 & 3), .word = word >> 12 & 0x0303};

	visit(&arrays, 0, slot, &key, word, flags);
	visit(&sized_arrays, 2, slot, &key, word, flags);
	visit(&cpu_arrays, 4, slot, &key, word, flags);
	visit(&cpu_hashes, 6, slot, &key, word, flags);
	visit(&lrus, 8, slot, &key, word, flags);
	visit(&cpu_lrus, 10, slot, &key, word, flags);
	visit(&tries, 12, slot, &prefix, word, flags);
	return XDP_PASS;
}
