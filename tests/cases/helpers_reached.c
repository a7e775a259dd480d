// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* helpers_reached: helpers and kfuncs that a program reaches only through others. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct element {
	struct bpf_timer timer;
	__u64 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct element);
} timers SEC(".maps");

extern int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *ptr) __ksym __weak;

static __noinline __u32 leaf(void)
{
	return bpf_get_prandom_u32();
}

static __noinline __u32 middle(struct xdp_md *ctx)
{
	struct bpf_dynptr packet;
	__u32 size = leaf();

	if (!bpf_dynptr_from_xdp(ctx, 0, &packet) && bpf_dynptr_size)
		size += bpf_dynptr_size(&packet);
	return size;
}

static int expired(void *map, __u32 *key, struct element *element)
{
	element->count += bpf_get_smp_processor_id();
	return 0;
}

static long each(__u32 index, void *unused)
{
	return bpf_jiffies64() & 1;
}

SEC("xdp")
int direct(struct xdp_md *ctx)
{
	return bpf_ktime_get_ns() & 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int through_subprograms(struct xdp_md *ctx)
{
	return middle(ctx) & 1 ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int through_callbacks(struct xdp_md *ctx)
{
	struct element *element;

	element = bpf_map_lookup_elem(&timers, &(__u32){0});
	if (element) {
		bpf_timer_init(&element->timer, &timers, 1);
		bpf_timer_set_callback(&element->timer, expired);
	}
	bpf_loop(3, each, 0, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
