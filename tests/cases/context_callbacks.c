// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* context_callbacks: the context in a structure on the stack that a helper hands to a callback. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define KEEP(x) asm volatile("" : "+r"(x))

struct bpf_map;

struct walk {
	struct xdp_md *ctx;
	struct xdp_md *next;
	struct xdp_md *last;
	__u64 found;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

static long each_index(__u32 index, void *data)
{
	struct walk *walk = data;

	walk->found += walk->ctx->rx_queue_index == index;
	return 0;
}

static long each_element(struct bpf_map *map, const void *key, void *value, void *data)
{
	struct walk *walk = data;

	if (walk->ctx->ingress_ifindex == *(__u32 *)key)
		*(__u64 *)value += 1;
	return 0;
}

/* What the first round stores, the second reads, and what that stores, the third. */
static long moves_on(__u32 index, void *data)
{
	struct walk *walk = data;
	struct xdp_md *next = walk->next, *last = walk->last;

	if (last)
		walk->found += last->data_end - last->data;
	if (next)
		walk->last = next;
	walk->next = walk->ctx;
	return 0;
}

SEC("xdp")
int loop(struct xdp_md *ctx)
{
	struct walk walk = {.ctx = ctx};

	bpf_loop(8, each_index, &walk, 0);
	return walk.found ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int elements(struct xdp_md *ctx)
{
	struct walk walk = {.ctx = ctx};

	bpf_for_each_map_elem(&table, each_element, &walk, 0);
	return ctx->data_meta == ctx->data ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int rounds(struct xdp_md *ctx)
{
	struct walk walk = {.ctx = ctx};

	bpf_loop(8, moves_on, &walk, 0);
	return walk.found ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int one_of_two(struct xdp_md *ctx)
{
	long (*callback)(__u32, void *) = each_index;
	struct walk walk = {.ctx = ctx};

	if (ctx->data_end - ctx->data > 100)
		return XDP_TX;
	bpf_loop(2, callback, &walk, 0);
	return walk.ctx->rx_queue_index == walk.found ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
