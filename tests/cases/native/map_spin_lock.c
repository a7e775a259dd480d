// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Values with a lock: updates leave it alone, whatever the program has in its place; BPF_F_LOCK. */
#include "common.h"

struct account {
	__u64 frames;
	__u32 last;
	struct bpf_spin_lock lock;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 20);
	__type(key, __u32);
	__type(value, struct account);
} hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 20);
	__type(key, __u32);
	__type(value, struct account);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 2000);
	__type(key, __u32);
	__type(value, __u64);
} plain SEC(".maps");

static __always_inline void visit(void *map, __u32 which, __u32 key, __u32 word)
{
	struct account value = {.frames = word, .last = word >> 7, .bytes = word >> 3};
	struct account *found = bpf_map_lookup_elem(map, &key);

	value.lock.val = word; /* nobody takes it for a lock that is held */
	if (found && word & 0x30000) {
		bpf_spin_lock(&found->lock);
		found->frames++;
		found->last = word;
		found->bytes += found->frames ^ found->last;
		bpf_spin_unlock(&found->lock);
		note(which, found->bytes);
		return;
	}
	note(which + 1, bpf_map_update_elem(map, &key, &value, word >> 20 & 7));
	found = bpf_map_lookup_elem(map, &key);
	note(which + 2, found ? found->frames + found->bytes : 1);
}

SEC("xdp")
int map_spin_lock(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word & 31;
	__u64 value = word;

	visit(&hash, 0, key, word);
	visit(&array, 4, key & 23, word);
	note(8, bpf_map_update_elem(&plain, &key, &value, BPF_F_LOCK | (word >> 5 & 3)));
	if (!(word >> 28))
		note(9, bpf_map_delete_elem(&hash, &key));
	return XDP_PASS;
}
