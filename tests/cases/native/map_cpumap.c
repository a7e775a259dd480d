// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* CPUMAP: redirects to CPUs that are there and not, fallbacks, no broadcast. The verifier allows
 * programs no lookup. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} plain SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} with_program SEC(".maps");

SEC("xdp")
int map_cpumap(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 3 + (word >> 8) % 3 * 4;
	__u64 flags = word >> 12 & 15;

	return word & 0x40000 ? bpf_redirect_map(&plain, key, flags)
			      : bpf_redirect_map(&with_program, key, flags);
}
