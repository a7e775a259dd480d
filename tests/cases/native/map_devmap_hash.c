// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* DEVMAP_HASH: keys are any numbers; broadcasts, fallbacks, lookups. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} plain SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} with_program SEC(".maps");

SEC("xdp")
int map_devmap_hash(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 3 * 1000, *device;
	__u64 flags = word >> 8 & 31;
	struct bpf_devmap_val *value;

	device = bpf_map_lookup_elem(&plain, &key);
	note(0, device ? *device : 77);
	value = bpf_map_lookup_elem(&with_program, &key);
	note(1, value ? value->ifindex : 78);
	if (word & 0x20000)
		flags |= 1ULL << (word >> 24 & 63);
	return word & 0x40000 ? bpf_redirect_map(&plain, key, flags)
			      : bpf_redirect_map(&with_program, key, flags);
}
