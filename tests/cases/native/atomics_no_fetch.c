// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Atomic operations whose old value nobody wants: add, or, and, xor of 32 and 64 bits, in a map. */
#include "common.h"

struct counters {
	__u64 wide[4];
	__u32 narrow[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct counters);
} table SEC(".maps");

SEC("xdp")
int atomics_no_fetch(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word & 3;
	struct counters *counters = bpf_map_lookup_elem(&table, &key);
	__u64 wide = (__u64)word << 13 | word;

	if (!counters)
		return XDP_ABORTED;
	__sync_fetch_and_add(&counters->wide[0], wide);
	__sync_fetch_and_or(&counters->wide[1], wide);
	__sync_fetch_and_and(&counters->wide[2], wide);
	__sync_fetch_and_xor(&counters->wide[3], wide);
	__sync_fetch_and_add(&counters->narrow[0], word);
	__sync_fetch_and_or(&counters->narrow[1], word);
	__sync_fetch_and_and(&counters->narrow[2], word);
	__sync_fetch_and_xor(&counters->narrow[3], word);
	if (key == 3 && word & 4) {
		__sync_fetch_and_or(&counters->wide[2], ~0ULL);
		__sync_fetch_and_or(&counters->narrow[2], ~0U);
		__sync_fetch_and_and(&counters->wide[1], 0);
	}
	return XDP_PASS;
}
