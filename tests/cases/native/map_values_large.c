// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Values of more than a page: ARRAY, HASH, PERCPU_ARRAY; from one map's memory into another's. */
#include "common.h"

struct large {
	__u64 word[1024];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct large);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct large);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 5);
	__type(key, __u32);
	__type(value, struct large);
} hash SEC(".maps");

SEC("xdp")
int map_values_large(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 7, zero = 0;
	struct large *found, *memory = bpf_map_lookup_elem(&scratch, &zero);

	if (!memory)
		return XDP_ABORTED;
	memory->word[word & 1023] = word;
	memory->word[1023] += 1;
	note(0, bpf_map_update_elem(&hash, &key, memory, (word >> 8) % 3));
	found = bpf_map_lookup_elem(&hash, &key);
	if (found)
		note(1, bpf_map_update_elem(&array, &key, found, BPF_ANY));
	found = bpf_map_lookup_elem(&array, &key);
	if (found)
		note(2, found->word[1023] ^ found->word[word & 1023]);
	if (word % 11 == 0)
		note(3, bpf_map_delete_elem(&hash, &key));
	return XDP_PASS;
}
