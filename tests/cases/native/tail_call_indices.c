// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Tail calls by indices of more than 32 bits, out of range, absent, and in tables of their own. */
#include "common.h"

int target(struct xdp_md *ctx);

struct table {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, int(void *));
};
struct table first SEC(".maps") = {.values = {[1] = (void *)&target}};
struct table other SEC(".maps") = {.values = {[2] = (void *)&target}};

SEC("xdp")
int tail_call_indices(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(0, 1);
	if (word & 0x100)
		bpf_tail_call(ctx, &first, word % 4);
	note(1, 1);
	if (word & 0x200)
		bpf_tail_call(ctx, &other, word % 6);
	note(2, 1);
	bpf_tail_call(ctx, &first, ~0);
	note(3, 1);
	bpf_tail_call(ctx, &other, 0x80000000);
	note(4, 1);
	if (word & 0x400)
		bpf_tail_call(ctx, &other, word);
	return XDP_PASS;
}

SEC("xdp")
int target(struct xdp_md *ctx)
{
	note(5, ctx->data_end - ctx->data);
	return XDP_TX;
}
