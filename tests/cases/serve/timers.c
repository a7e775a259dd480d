// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A timer that starts itself again every few milliseconds once a frame has started it, and one that
 * a frame puts off: what a service does while no frames come. */
#include "../native/common.h"

struct slot {
	__u64 rounds;
	struct bpf_timer timer;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

static int tick(void *map, __u32 *key, struct slot *slot)
{
	slot->rounds++;
	bpf_timer_start(&slot->timer, 5000000, 0);
	return 0;
}

static int idle(void *map, __u32 *key, struct slot *slot)
{
	slot->rounds++;
	return 0;
}

SEC("xdp")
int timers(struct xdp_md *ctx)
{
	__u32 first = 0, second = 1;
	struct slot *ticking = bpf_map_lookup_elem(&slots, &first);
	struct slot *idling = bpf_map_lookup_elem(&slots, &second);

	if (!ticking || !idling)
		return XDP_ABORTED;
	if (!bpf_timer_init(&ticking->timer, &slots, 1)) {
		bpf_timer_set_callback(&ticking->timer, tick);
		bpf_timer_start(&ticking->timer, 0, 0);
		bpf_timer_init(&idling->timer, &slots, 1);
		bpf_timer_set_callback(&idling->timer, idle);
	}
	bpf_timer_start(&idling->timer, 300000000, 0);
	return XDP_DROP;
}
