// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* ARRAY: mmapable, read-only for programs, odd value sizes, flags of updates of all bits. */
#include "common.h"

struct odd {
	__u8 byte[13];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 700);
	__type(key, __u32);
	__type(value, struct odd);
} mapped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} readable SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_WRONLY_PROG);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} writable SEC(".maps");

SEC("xdp")
int map_array_flags(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 750;
	struct odd odd = {{word, word >> 8, [12] = word >> 24}}, *found;
	__u64 wide = word, *number;

	note(0, bpf_map_update_elem(&mapped, &key, &odd, 1ULL << (word >> 9 & 63)));
	note(1, bpf_map_update_elem(&mapped, &key, &odd, word % 9));
	note(2, bpf_map_update_elem(&mapped, &key, &odd, BPF_F_LOCK | word % 4));
	found = bpf_map_lookup_elem(&mapped, &key);
	if (found)
		found->byte[11] += odd.byte[12];
	key = word % 6;
	number = bpf_map_lookup_elem(&readable, &key);
	note(3, number ? *number : 5);
	note(4, bpf_map_update_elem(&writable, &key, &wide, BPF_EXIST));
	note(5, bpf_map_delete_elem(&writable, &key));
	return XDP_PASS;
}
