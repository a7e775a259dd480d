/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Gives a program that is measured in the kernel another flow's frame each time.
 *
 * BPF_PROG_TEST_RUN with repeat runs a program again and again on the frame as the program left it.
 * This one runs first, every time: it moves the frame's beginning, end and metadata back to where
 * they were at first, copies the next flow's first 64 bytes over it, and tail-calls the program.
 * What this costs is measured with an empty program in the other's place, and subtracted.
 *
 * Reference: net/bpf/test_run.c, bpf_test_run()
 */
#include "bpf.h"

#define HEAD_WORDS 8 /* UXDP_BENCH_HEAD, native/bench.c */

struct state {
	__u64 next; /* flow */
	__u64 num_flows;
	/* Where the frame lay at first, as addresses; 0: not seen yet. */
	__u64 data;
	__u64 data_end;
	/* Where it lies now. By way of memory, pointers become numbers that can be subtracted. */
	__u64 now;
	__u64 now_end;
	__u64 now_meta;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

struct head {
	__u64 word[HEAD_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* as many as there are flows */
	__type(key, __u32);
	__type(value, struct head);
} heads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} program SEC(".maps");

static inline __attribute__((always_inline)) void note(struct xdp_md *ctx, struct state *s)
{
	*(volatile __u64 *)&s->now = (__u64)ctx->data;
	*(volatile __u64 *)&s->now_end = (__u64)ctx->data_end;
	*(volatile __u64 *)&s->now_meta = (__u64)ctx->data_meta;
}

static inline __attribute__((always_inline)) __u64 word(__u64 *at)
{
	return *(volatile __u64 *)at;
}

SEC("xdp")
int bench_restore(struct xdp_md *ctx)
{
	__u32 zero = 0, flow;
	struct state *s = bpf_map_lookup_elem(&state, &zero);
	struct head *head;
	__u64 *data, *data_end;

	if (!s)
		return XDP_ABORTED;
	note(ctx, s);
	if (!s->data) {
		s->data = word(&s->now);
		s->data_end = word(&s->now_end);
	}
	if (word(&s->now) != s->data || word(&s->now_end) != s->data_end ||
	    word(&s->now_meta) != s->data) {
		if (bpf_xdp_adjust_head(ctx, s->data - word(&s->now)) ||
		    bpf_xdp_adjust_tail(ctx, s->data_end - word(&s->now_end)))
			return XDP_ABORTED;
		note(ctx, s);
		if (bpf_xdp_adjust_meta(ctx, word(&s->now) - word(&s->now_meta)))
			return XDP_ABORTED;
	}

	flow = s->next;
	s->next = flow + 1 < s->num_flows ? flow + 1 : 0;
	head = bpf_map_lookup_elem(&heads, &flow);
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (!head || data + HEAD_WORDS > data_end)
		return XDP_ABORTED;
	for (int i = 0; i < HEAD_WORDS; i++)
		data[i] = head->word[i];

	bpf_tail_call(ctx, &program, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int bench_empty(void)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
