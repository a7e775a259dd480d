// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Bloom filters that are far too full: with one seed, kernel and native code err alike. */
#include "common.h"

#define FILTER(name, size, entries, hashes, flags)                                                 \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);                                           \
		__uint(max_entries, entries);                                                      \
		__uint(value_size, size);                                                          \
		__uint(map_extra, hashes);                                                         \
		__uint(map_flags, flags);                                                          \
	} name SEC(".maps")

FILTER(words, 4, 100, 0, BPF_F_ZERO_SEED);
FILTER(odd, 7, 100, 3, BPF_F_ZERO_SEED);
FILTER(long_values, 29, 1000, 15, BPF_F_ZERO_SEED);
FILTER(small, 12, 1, 1, BPF_F_ZERO_SEED);
FILTER(roomy, 8, 100000, 8, 0);

SEC("xdp")
int map_bloom(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), kind = word >> 10 & 1023;
	__u32 value[8] = {kind, kind * 3, kind ^ 7, 0, kind, 1, 2, kind * 5};

	note(0, bpf_map_peek_elem(&words, value));
	note(1, bpf_map_peek_elem(&odd, value));
	note(2, bpf_map_peek_elem(&long_values, value));
	note(3, bpf_map_peek_elem(&small, value));
	note(4, bpf_map_peek_elem(&roomy, value));
	if (word & 0x3000000)
		return XDP_DROP;
	note(5, bpf_map_push_elem(&words, value, word >> 26 & 3));
	note(6, bpf_map_push_elem(&odd, value, BPF_ANY));
	note(7, bpf_map_push_elem(&long_values, value, BPF_ANY));
	if (!kind)
		note(8, bpf_map_push_elem(&small, value, BPF_ANY));
	note(9, bpf_map_push_elem(&roomy, value, BPF_ANY));
	return XDP_PASS;
}
