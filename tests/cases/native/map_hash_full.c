// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* HASH of one and of three elements: E2BIG when full, replacing and deleting go on. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} one SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} three SEC(".maps");

SEC("xdp")
int map_hash_full(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 5;
	__u64 value = word;

	note(0, bpf_map_update_elem(&one, &key, &value, BPF_NOEXIST));
	note(1, bpf_map_update_elem(&one, &key, &value, BPF_ANY));
	note(2, bpf_map_update_elem(&three, &key, &value, BPF_NOEXIST));
	note(3, bpf_map_update_elem(&three, &key, &value, BPF_EXIST));
	key = (word >> 8) % 5;
	note(4, bpf_map_update_elem(&three, &key, &value, BPF_ANY));
	note(5, !!bpf_map_lookup_elem(&one, &key));
	if (word % 7 == 0)
		note(6, bpf_map_delete_elem(&one, &key));
	if (word % 3 == 0)
		note(7, bpf_map_delete_elem(&three, &key));
	return XDP_PASS;
}
