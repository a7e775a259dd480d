// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* How many elements maps have: hash maps of all kinds, full, emptied, inner ones and maps of maps;
 * the kernel says 0 of all that are no hash maps. */
#include "common.h"

#define ENTRIES 48

struct bpf_map {
};

extern __s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym;

#define MAP(name, kind, entries, flags)                                                            \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, flags);                                                          \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(plain, HASH, ENTRIES, 0);
MAP(unprepared, HASH, ENTRIES, BPF_F_NO_PREALLOC);
MAP(cpu_plain, PERCPU_HASH, ENTRIES, 0);
MAP(recent, LRU_HASH, 4096, 0);
MAP(cpu_recent, LRU_PERCPU_HASH, 4096, 0);
MAP(array, ARRAY, ENTRIES, 0);

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 4);
	__type(value, __u32);
} queue SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {.values = {[0] = &first, [2] = &second}};

#define count(map) bpf_map_sum_elem_count((const struct bpf_map *)(map))

static __always_inline void change(void *map, __u32 which, __u32 word)
{
	__u32 key = word >> 8 & 63;
	__u64 value = word;

	if (word & 3)
		note(which, bpf_map_update_elem(map, &key, &value, word >> 5 & 3));
	else
		note(which, bpf_map_delete_elem(map, &key));
	note(which, count(map));
}

SEC("xdp")
int map_sum(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), slot = word % 5;
	void *map;

	change(&plain, 0, word);
	change(&unprepared, 1, word);
	change(&cpu_plain, 2, word);
	change(&recent, 3, word);
	change(&cpu_recent, 4, word);
	change(&array, 5, word);
	note(6, count(&devices));
	note(7, bpf_map_push_elem(&queue, &word, BPF_EXIST));
	note(8, count(&queue));
	note(9, count(&outer));
	map = bpf_map_lookup_elem(&outer, &slot);
	if (!map)
		return XDP_DROP;
	change(map, 10, word);
	return count(map) > 8 ? XDP_TX : XDP_PASS;
}

static __noinline __s64 count_of(void *map)
{
	return map ? count(map) : -1;
}

SEC("xdp")
int map_sum_alone(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), slot = word % 5;

	note(12, count_of(bpf_map_lookup_elem(&outer, &slot)));
	note(13, count_of(&plain));
	return XDP_PASS;
}
