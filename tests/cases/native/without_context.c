// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A program that does not take the context, with a lookup that is worth looking ahead for. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 17);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

SEC("xdp")
int without_context(void)
{
	__u64 one = 1, *count;
	__u32 key = 7;

	count = bpf_map_lookup_elem(&counts, &key);
	if (!count) {
		bpf_map_update_elem(&counts, &key, &one, BPF_NOEXIST);
		return XDP_DROP;
	}
	*count += 1;
	return *count % 3 ? XDP_PASS : XDP_TX;
}
