// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Timers in the values of an array and of hash maps: started, put off, cancelled, lost with their
 * element or by an update, started again by their callback; what is wrong with flags, clocks and
 * orders of calls. Callbacks leave no order to compare, but sums. The kernel takes memory for a
 * timer only where some is at hand, so there are few. */
#include "common.h"

#define CLOCK_REALTIME 0
#define CLOCK_MONOTONIC 1
#define CLOCK_BOOTTIME 7
#define FAR (1ull << 58)

#ifndef BPF_F_TIMER_ABS
#define BPF_F_TIMER_ABS 1
#endif

struct slot {
	__u64 fired;
	struct bpf_timer timer;
	__u32 word;
	__u32 rounds;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct slot);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct slot);
} recent SEC(".maps");

/* Whether the kernel found no memory for a timer: then there is nothing to compare. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} starved SEC(".maps");

__u64 expired, keys, lost;
__u8 seen[16];

static __always_inline long init(struct bpf_timer *timer, void *map, __u64 flags)
{
	long error = bpf_timer_init(timer, map, flags);
	__u32 first = 0, one = 1;

	if (error == -12)
		bpf_map_update_elem(&starved, &first, &one, BPF_ANY);
	return error;
}

static int on_slot(void *map, __u32 *key, struct slot *slot)
{
	__sync_fetch_and_add(&slot->fired, *key + 1);
	if (slot->rounds) {
		slot->rounds--;
		bpf_timer_start(&slot->timer, 1000, 0);
	}
	return 0;
}

static int on_flow(void *map, __u64 *key, struct slot *slot)
{
	__u64 known = *key;

	__sync_fetch_and_add(&expired, 1);
	__sync_fetch_and_add(&keys, known * slot->word);
	if (known & 1)
		bpf_map_delete_elem(map, &known);
	return 0;
}

static int on_recent(void *map, __u32 *key, struct slot *slot)
{
	if (bpf_timer_cancel(&slot->timer) == -35)
		__sync_fetch_and_add(&lost, *key);
	slot->fired++;
	return 0;
}

SEC("xdp")
int timers(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), index = word & 15, key32 = word & 3;
	struct slot fresh = {.word = word & 63}, *slot = bpf_map_lookup_elem(&slots, &index), *flow;
	__u64 key = word >> 4 & 15;

	if (!slot)
		return XDP_ABORTED;
	/* An array's: initialised once, started again and again. */
	if (index < 8) {
		note(0, bpf_timer_start(&slot->timer, 1, 0) == -22);
		note(1, init(&slot->timer, &slots, index & 1 ? CLOCK_MONOTONIC : CLOCK_BOOTTIME));
		bpf_timer_set_callback(&slot->timer, on_slot);
		slot->rounds = index;
		note(2, bpf_timer_start(&slot->timer, FAR, 0));
		note(3, bpf_timer_cancel(&slot->timer));
		note(4, bpf_timer_start(&slot->timer, FAR, 0));
		note(5, bpf_timer_cancel(&slot->timer));
	} else if (index < 12) {
		note(6, bpf_timer_cancel(&slot->timer));
		note(7, bpf_timer_set_callback(&slot->timer, on_slot));
		note(8, init(&slot->timer, &slots, 2));
		note(9, init(&slot->timer, &slots, 16 | CLOCK_MONOTONIC));
		note(10, bpf_timer_start(&slot->timer, 1, 4));
	} else if (!slot->word) {
		slot->word = 1;
		note(11, init(&slot->timer, &slots, CLOCK_MONOTONIC));
		note(12, init(&slot->timer, &slots, CLOCK_MONOTONIC));
		note(13, bpf_timer_start(&slot->timer, 1, 0));
		note(14, bpf_timer_set_callback(&slot->timer, on_slot));
		slot->rounds = 3;
		note(15, bpf_timer_start(&slot->timer, 0, index & 1 ? BPF_F_TIMER_ABS : 0));
	}

	/* Flows, each once: to fire now, or not while this runs. */
	if (seen[key])
		return XDP_TX;
	seen[key] = 1;
	bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return XDP_ABORTED;
	note(16, init(&flow->timer, &flows, CLOCK_MONOTONIC));
	note(17, bpf_timer_set_callback(&flow->timer, on_flow));
	note(18, bpf_timer_start(&flow->timer, key & 4 ? 1 : FAR, 0));
	switch (key & 7) {
	case 0: /* put off */
		note(19, bpf_timer_start(&flow->timer, 2 * FAR, 0));
		break;
	case 1: /* deleted */
		note(20, bpf_map_delete_elem(&flows, &key));
		break;
	case 2: /* overwritten */
		note(21, bpf_map_update_elem(&flows, &key, &fresh, BPF_EXIST));
		flow = bpf_map_lookup_elem(&flows, &key);
		if (flow)
			note(22, bpf_timer_start(&flow->timer, 1, 0));
		break;
	case 3: /* cancelled */
		note(23, bpf_timer_cancel(&flow->timer));
		note(24, bpf_timer_start(&flow->timer, 1, 0));
		if (key & 8) {
			bpf_timer_set_callback(&flow->timer, on_flow);
			note(25, bpf_timer_start(&flow->timer, 1, BPF_F_TIMER_ABS));
		}
		break;
	}

	if (!bpf_map_lookup_elem(&recent, &key32)) {
		bpf_map_update_elem(&recent, &key32, &fresh, BPF_ANY);
		flow = bpf_map_lookup_elem(&recent, &key32);
		if (flow) {
			init(&flow->timer, &recent, CLOCK_REALTIME);
			bpf_timer_set_callback(&flow->timer, on_recent);
			note(26, bpf_timer_start(&flow->timer, 100000, 0));
		}
	}
	return XDP_PASS;
}
