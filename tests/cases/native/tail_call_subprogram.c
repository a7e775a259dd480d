// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Tail calls in subprograms: what is called returns to the subprogram's caller. */
#include "common.h"

int five(struct xdp_md *ctx);
int deep(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
} table SEC(".maps") = {.values = {[0] = (void *)&five, [1] = (void *)&deep}};

__u32 calls;

static __noinline int through(struct xdp_md *ctx, __u32 index)
{
	calls++;
	bpf_tail_call(ctx, &table, index);
	return 100 + index;
}

SEC("xdp")
int tail_call_subprogram(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	int first = through(ctx, word % 4), second = through(ctx, word >> 8 & 3);

	note(0, first);
	note(1, second);
	return first == second ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int five(struct xdp_md *ctx)
{
	return 5;
}

SEC("xdp")
int deep(struct xdp_md *ctx)
{
	int result = through(ctx, 1);

	note(2, result);
	return result + 1;
}
