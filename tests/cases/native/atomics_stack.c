// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Atomic operations on the stack and in per-CPU memory; compare-and-exchange that fails. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[2]);
} percpu SEC(".maps");

SEC("xdp")
int atomics_stack(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), zero = 0;
	volatile __u64 wide = word;
	volatile __u32 narrow = word;
	__u64 *memory = bpf_map_lookup_elem(&percpu, &zero);

	if (!memory)
		return XDP_ABORTED;
	note(0, __sync_fetch_and_add(&wide, 5));
	note(1, __sync_fetch_and_or(&narrow, 0xf0f0));
	note(2, __sync_fetch_and_and(&narrow, 0xff00ff));
	note(3, __sync_val_compare_and_swap(&wide, word & 1 ? word + 5ULL : 3, 9));
	note(4, __sync_val_compare_and_swap(&narrow, word, ~word));
	note(5, wide);
	note(6, narrow);
	note(7, __sync_fetch_and_xor(&memory[0], wide));
	note(8, __sync_lock_test_and_set(&memory[1], memory[0]));
	return XDP_PASS;
}
