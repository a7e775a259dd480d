// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Callbacks for every element: sums in no order, stops, elements deleted and changed, wrong flags.
 */
#include "common.h"

#define MAP(kind, name)                                                                            \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(max_entries, 40);                                                           \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(BPF_MAP_TYPE_ARRAY, array);
MAP(BPF_MAP_TYPE_PERCPU_ARRAY, cpu_array);
MAP(BPF_MAP_TYPE_HASH, hash);
MAP(BPF_MAP_TYPE_PERCPU_HASH, cpu_hash);
MAP(BPF_MAP_TYPE_LRU_HASH, lru);
MAP(BPF_MAP_TYPE_LRU_PERCPU_HASH, cpu_lru);

struct bpf_map;

struct sum {
	struct xdp_md *ctx;
	__u64 keys;
	__u64 values;
	__u32 limit;
	__u32 seen;
};

static long add(struct bpf_map *map, const __u32 *key, __u64 *value, struct sum *sum)
{
	sum->keys += *key * 0x9e3779b97f4a7c15ull;
	sum->values += *value ^ *key << 3;
	sum->seen++;
	*value += 1 + (sum->ctx->data_end - sum->ctx->data);
	return 0;
}

static long add_some(struct bpf_map *map, const __u32 *key, __u64 *value, struct sum *sum)
{
	sum->seen++;
	return sum->seen >= sum->limit;
}

static long drop(struct bpf_map *map, const __u32 *key, __u64 *value, struct sum *sum)
{
	if ((*key ^ sum->limit) & 1)
		sum->values += bpf_map_delete_elem(map, key);
	return 0;
}

static __always_inline void visit(void *map, __u32 which, __u32 word, struct sum *sum)
{
	*sum = (struct sum){.ctx = sum->ctx, .limit = word >> 8 & 15};
	note(which, bpf_for_each_map_elem(map, add, sum, 0));
	note(which + 1, sum->keys + sum->values + sum->seen);
	sum->seen = 0;
	note(which + 2, bpf_for_each_map_elem(map, add_some, sum, 0) * 100 + sum->seen);
	note(which + 3, bpf_for_each_map_elem(map, add, sum, 1));
}

static __always_inline void visit_hash(void *map, __u32 which, __u32 word, struct sum *sum)
{
	__u32 key = word & 63;
	__u64 value = word;

	bpf_map_update_elem(map, &key, &value, BPF_ANY);
	visit(map, which, word, sum);
	if (!(word >> 12 & 15))
		note(which + 4, bpf_for_each_map_elem(map, drop, sum, 0) + sum->values);
}

SEC("xdp")
int map_for_each(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct sum sum = {.ctx = ctx};

	visit(&array, 0, word, &sum);
	visit(&cpu_array, 4, word, &sum);
	visit_hash(&hash, 8, word, &sum);
	visit_hash(&cpu_hash, 13, word, &sum);
	word &= ~0x20u; /* no more keys than places: which one goes is not the same */
	visit_hash(&lru, 18, word, &sum);
	visit_hash(&cpu_lru, 23, word, &sum);
	return XDP_PASS;
}
