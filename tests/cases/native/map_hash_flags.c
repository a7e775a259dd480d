// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* HASH: update flags that are none, BPF_F_LOCK without a lock, and definitions with access flags.
 */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_ZERO_SEED);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} seeded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} readable SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_WRONLY_PROG);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} writable SEC(".maps");

SEC("xdp")
int map_hash_flags(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 90, *found;
	__u64 flags = word >> 8;

	note(0, bpf_map_update_elem(&seeded, &key, &word, flags));
	note(1, bpf_map_update_elem(&seeded, &key, &word, flags % 8));
	note(2, bpf_map_update_elem(&seeded, &key, &word, BPF_F_LOCK | flags % 3));
	note(3, bpf_map_update_elem(&seeded, &key, &word, 1ULL << (word & 63)));
	found = bpf_map_lookup_elem(&readable, &key);
	note(4, found ? *found : 3);
	note(5, bpf_map_update_elem(&writable, &key, &word, flags % 3));
	note(6, bpf_map_delete_elem(&writable, &key));
	return XDP_PASS;
}
