/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What `uxdp bench --maps` measures: a map's operations, in the kernel and, from the same IR,
 * natively.
 *
 * Each run makes OPERATIONS operations with keys that are drawn from the first "fill" ones; "empty"
 * draws the keys and does nothing with them, and the difference is the map. The maps below are
 * replaced when this is loaded, by some of the type and sizes that are measured.
 */
#include "bpf.h"

#define OPERATIONS 64
#define KEY_WORDS 8
#define GOLDEN 0x9e3779b97f4a7c15ull

enum { INDEX, SPREAD, PREFIX }; /* what keys are like */

const volatile __u32 fill = 1;
const volatile __u32 keys = INDEX;

struct inner {
	__uint(type, 1); /* hash */
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} table SEC(".maps");

struct {
	__uint(type, 12); /* array_of_maps */
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
	typeof(struct inner) *values[];
} outer SEC(".maps") = {.values = {&table}};

struct {
	__uint(type, 22); /* queue */
	__uint(max_entries, 1);
	__uint(value_size, 8);
} values SEC(".maps");

struct draw {
	__u64 state;
	__u64 key[KEY_WORDS];
	__u64 sum;
};

static inline __attribute__((always_inline)) void begin(struct draw *draw)
{
	draw->state = (__u64)bpf_get_prandom_u32() << 32 | 1;
	draw->sum = 0;
	for (__u32 i = 0; i < KEY_WORDS; i++)
		draw->key[i] = i * GOLDEN;
}

/* The number of the next key, and the key. */
static inline __attribute__((always_inline)) __u32 next_key(struct draw *draw)
{
	__u64 *key = draw->key, number;

	draw->state = draw->state * 6364136223846793005ull + 1442695040888963407ull;
	number = (draw->state >> 32) * fill >> 32;
	if (keys == INDEX)
		draw->key[0] = number;
	else if (keys == SPREAD)
		draw->key[0] = number * GOLDEN;
	else
		draw->key[0] = (__u64)(__u32)(number * 0x9e3779b1u) << 32 | 32;
	__asm__ volatile("" : "+r"(key) : : "memory"); /* it is in memory now */
	return number + (*key == 1);
}

SEC("xdp")
int bench_lookup(void)
{
	struct draw draw;

	begin(&draw);
	for (__u32 i = 0; i < OPERATIONS; i++) {
		__u64 *value;

		draw.sum += next_key(&draw);
		value = bpf_map_lookup_elem(&table, draw.key);
		if (value)
			draw.sum += *value;
	}
	return draw.sum == 1 ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int bench_update(void)
{
	struct draw draw;

	begin(&draw);
	for (__u32 i = 0; i < OPERATIONS; i++) {
		__u64 value[KEY_WORDS] = {next_key(&draw)};

		draw.sum += bpf_map_update_elem(&table, draw.key, value, 0);
	}
	return draw.sum == 1 ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int bench_nested(void)
{
	struct draw draw;
	__u32 slot = 0;

	begin(&draw);
	for (__u32 i = 0; i < OPERATIONS; i++) {
		void *inner = bpf_map_lookup_elem(&outer, &slot);
		__u64 *value;

		next_key(&draw);
		if (!inner)
			return XDP_ABORTED;
		value = bpf_map_lookup_elem(inner, draw.key);
		if (value)
			draw.sum += *value;
	}
	return draw.sum == 1 ? XDP_DROP : XDP_PASS;
}

/* One operation is a push and a pop. */
SEC("xdp")
int bench_pushed(void)
{
	struct draw draw;

	begin(&draw);
	for (__u32 i = 0; i < OPERATIONS; i++) {
		next_key(&draw);
		draw.sum += bpf_map_push_elem(&values, draw.key, 0);
		draw.sum += bpf_map_pop_elem(&values, draw.key);
	}
	return draw.sum == 1 ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int bench_peeked(void)
{
	struct draw draw;

	begin(&draw);
	for (__u32 i = 0; i < OPERATIONS; i++) {
		next_key(&draw);
		draw.sum += bpf_map_peek_elem(&values, draw.key);
	}
	return draw.sum == 1 ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int bench_nothing(void)
{
	struct draw draw;

	begin(&draw);
	for (__u32 i = 0; i < OPERATIONS; i++)
		draw.sum += next_key(&draw);
	return draw.sum == 1 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
