/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Timers in the values of maps.
 *
 * Every element that could hold a timer has its place in one table, which all workers share: what
 * is to be called, and when. struct bpf_timer in the value holds the number of the place and the
 * generation of what is in it, both as bpf_timer_init left them. So whoever overwrites the value,
 * the program or a control plane, has cancelled the timer, as in the kernel; and a timer whose
 * element has been deleted is found out when it is due: its key leads elsewhere.
 *
 * The worker that starts a timer calls it, between bursts. Its heap says what is due next. A timer
 * that is put off stays where it is in the heap and moves when it comes up there: to put one off
 * with every frame costs two stores. In the heap of a worker that another one has taken over from,
 * it stays until it comes up, too.
 *
 * A place is under a lock of its own. Callbacks run without.
 *
 * Reference: kernel/bpf/helpers.c, bpf_timer_init() and the following
 */
#ifndef UXDP_TIMERS_H
#define UXDP_TIMERS_H

#include "clock.h"
#include "maps/array.h"
#include "maps/hash_find.h"

#define BPF_F_TIMER_ABS 1ull
#define BPF_F_TIMER_CPU_PIN 2ull
#define MAX_CLOCKS 16u /* include/uapi/linux/time.h */
#define CLOCK_REALTIME 0
#define TIMER_MAX_KEY 512u /* MAX_BPF_STACK: what keys of programs have at most */
#define TIMERS_AT_ONCE 64u /* callbacks between two bursts: frames must not wait for long */

/* What a program has as struct bpf_timer. */
struct timer_handle {
	u64 generation; /* 0: not initialised */
	u64 place;
};

struct timer {
	u32 lock;
	u32 callback; /* the compiler's number of it; 0: none */
	u64 generation;
	u64 handle;  /* the address of the timer_handle */
	u64 expires; /* CLOCK_MONOTONIC; 0: not started */
	u32 map;
	u32 slot;    /* of the map */
	u32 owner;   /* the worker that started it last */
	u32 running; /* the worker that calls it just now, + 1 */
	u32 clock;   /* of absolute times */
	u32 zero;
};

struct timer_node {
	u64 expires; /* what it said when the node was placed; it may say more now */
	u64 place;
};

/* One worker's; "position" has an entry for each place behind the nodes. */
struct timer_heap {
	u64 used;
	u64 next_ns; /* see uxdp_worker.next_timer_ns */
	struct timer_node nodes[];
};

/* The memory of all this; the runtime makes it, zeroed, and fills in the header. */
struct uxdp_timers {
	u64 num_places;
	u64 generation; /* the last one that was given out; begins at a random number */
	u32 num_cpus;
	u32 num_maps;
	u64 first_place[]; /* of each map, by its number */
};

_Static_assert(sizeof(struct timer) == 56, "a place");

/* Places that a map's elements need. */
UXDP_INLINE u64 timer_slots(const struct uxdp_map *map)
{
	if (map_is_hash(map) && !hash_is_percpu(map))
		return (u64)hash_capacity(map) + hash_extra_elements(map);
	return map->kind == BPF_MAP_TYPE_ARRAY ? map->max_entries : 0;
}

UXDP_INLINE u64 timers_offset(u32 num_maps)
{
	return round_up_to(sizeof(struct uxdp_timers) + num_maps * sizeof(u64), 64);
}

UXDP_INLINE u64 timer_heap_bytes(u64 num_places)
{
	return round_up_to(sizeof(struct timer_heap) +
			       num_places * (sizeof(struct timer_node) + sizeof(u32)),
			   PAGE_SIZE);
}

UXDP_INLINE u64 timer_heaps_offset(u64 num_places, u32 num_maps)
{
	return round_up_to(timers_offset(num_maps) + num_places * sizeof(struct timer), PAGE_SIZE);
}

UXDP_INLINE struct timer *timer_at(struct uxdp_timers *all, u64 place)
{
	return (struct timer *)((u8 *)all + timers_offset(all->num_maps)) + place;
}

UXDP_INLINE struct timer_heap *timer_heap(struct uxdp_timers *all, u32 cpu)
{
	return (struct timer_heap *)((u8 *)all +
				     timer_heaps_offset(all->num_places, all->num_maps) +
				     cpu * timer_heap_bytes(all->num_places));
}

/* --- heaps: of one worker alone --- */

/* Where in the heap a place is, + 1; 0: nowhere. */
UXDP_INLINE u32 *heap_position(struct uxdp_timers *all, struct timer_heap *heap, u64 place)
{
	return (u32 *)(heap->nodes + all->num_places) + place;
}

UXDP_INLINE void heap_put(struct uxdp_timers *all, struct timer_heap *heap, u64 index,
			  struct timer_node node)
{
	heap->nodes[index] = node;
	*heap_position(all, heap, node.place) = index + 1;
}

static void heap_up(struct uxdp_timers *all, struct timer_heap *heap, u64 index)
{
	struct timer_node node = heap->nodes[index];

	while (index && heap->nodes[(index - 1) / 2].expires > node.expires) {
		heap_put(all, heap, index, heap->nodes[(index - 1) / 2]);
		index = (index - 1) / 2;
	}
	heap_put(all, heap, index, node);
}

static void heap_down(struct uxdp_timers *all, struct timer_heap *heap, u64 index)
{
	struct timer_node node = heap->nodes[index];

	for (u64 child; (child = 2 * index + 1) < heap->used; index = child) {
		if (child + 1 < heap->used &&
		    heap->nodes[child + 1].expires < heap->nodes[child].expires)
			child++;
		if (heap->nodes[child].expires >= node.expires)
			break;
		heap_put(all, heap, index, heap->nodes[child]);
	}
	heap_put(all, heap, index, node);
}

static void heap_remove_first(struct uxdp_timers *all, struct timer_heap *heap)
{
	*heap_position(all, heap, heap->nodes[0].place) = 0;
	if (--heap->used) {
		heap->nodes[0] = heap->nodes[heap->used];
		heap_down(all, heap, 0);
	}
}

UXDP_INLINE void note_next(struct timer_heap *heap)
{
	__atomic_store_n(&heap->next_ns, heap->used ? heap->nodes[0].expires : 0, __ATOMIC_RELAXED);
}

static void heap_add(struct uxdp_timers *all, u64 place, u64 expires)
{
	struct timer_heap *heap = timer_heap(all, uxdp_worker.cpu);
	u32 position = *heap_position(all, heap, place);

	if (!position) {
		heap->nodes[heap->used] = (struct timer_node){expires, place};
		heap_up(all, heap, heap->used++);
	} else if (expires < heap->nodes[position - 1].expires) {
		heap->nodes[position - 1].expires = expires;
		heap_up(all, heap, position - 1);
	}
	note_next(heap);
}

/* --- timers --- */

/* The place that a handle leads to, locked; NULL: it is not initialised. */
UXDP_INLINE struct timer *timer_lock(const struct timer_handle *handle)
{
	struct uxdp_timers *all = uxdp_worker.timers;
	u64 place = handle->place, generation = handle->generation;
	struct timer *timer;

	if (!all || !generation || place >= all->num_places)
		return NULL;
	timer = timer_at(all, place);
	if (!seqlock_lock(&timer->lock))
		return NULL;
	if (timer->generation == generation && timer->handle == (u64)handle)
		return timer;
	seqlock_unlock(&timer->lock);
	return NULL;
}

/* The element that a value or something in it belongs to. */
UXDP_INLINE u64 timer_slot(const struct uxdp_map *map, u64 address)
{
	if (map->kind == BPF_MAP_TYPE_ARRAY)
		return (address - (u64)map->store) / array_stride(map);
	return (address - (u64)hash_element(map, 0)) / hash_stride(map);
}

UXDP_COLD s64 timer_init(struct timer_handle *handle, const struct uxdp_map *map, u32 clock)
{
	struct uxdp_timers *all = uxdp_worker.timers;
	struct timer *timer = timer_lock(handle);
	u64 slot = timer_slot(map, (u64)handle), place, generation;

	if (timer) {
		seqlock_unlock(&timer->lock);
		return -EBUSY;
	}
	if (!all || map->id >= all->num_maps)
		return -ENOMEM;
	place = all->first_place[map->id] + slot;
	/* An address that is in none of the map's elements: the verifier has not seen this. */
	if (slot >= timer_slots(map) || place >= all->num_places)
		return -EINVAL;
	timer = timer_at(all, place);
	if (!seqlock_lock(&timer->lock))
		return -EBUSY;
	do
		generation = __atomic_add_fetch(&all->generation, 1, __ATOMIC_RELAXED);
	while (!generation);
	timer->callback = 0;
	timer->expires = 0;
	timer->clock = clock;
	timer->map = map->id;
	timer->slot = slot;
	timer->handle = (u64)handle;
	timer->generation = generation;
	handle->place = place;
	handle->generation = generation;
	seqlock_unlock(&timer->lock);
	return 0;
}

UXDP_INLINE u64 saturated_sum(u64 one, u64 other)
{
	u64 sum = one + other;

	return sum < one || sum > INT64_MAX ? INT64_MAX : sum;
}

/* When it is due, by CLOCK_MONOTONIC; never 0. */
UXDP_INLINE u64 timer_expiry(u64 ns, u64 flags, u32 clock)
{
	u64 now = worker_time_ns();

	if (!(flags & BPF_F_TIMER_ABS))
		return saturated_sum(now, ns);
	if (clock != CLOCK_MONOTONIC) {
		u64 then = worker_clock_ns(clock);

		return ns > then ? saturated_sum(now, ns - then) : now;
	}
	return ns && ns < INT64_MAX ? ns : ns ? INT64_MAX : 1;
}

/* Wait until nobody calls it any more; -EDEADLK if that would be for itself. */
UXDP_COLD s64 timer_await(struct timer *timer)
{
	u32 me = uxdp_worker.cpu + 1;

	for (u32 spins = 0; spins < UXDP_SPINS; spins++) {
		u32 running = __atomic_load_n(&timer->running, __ATOMIC_ACQUIRE);

		if (!running)
			return 0;
		if (running == me || uxdp_worker.in_timer)
			return -EDEADLK;
		cpu_relax();
	}
	return -EDEADLK;
}

/* What the compiler makes: the map of a number, and a call of one of the program's callbacks. */
const struct uxdp_map *uxdp_timer_map(u32 number);
s64 uxdp_timer_callback(u32 callback, const struct uxdp_map *map, void *key, void *value);

__attribute__((weak)) const struct uxdp_map *uxdp_timer_map(u32 number)
{
	(void)number;
	return NULL;
}

__attribute__((weak)) s64 uxdp_timer_callback(u32 callback, const struct uxdp_map *map, void *key,
					      void *value)
{
	(void)callback, (void)map, (void)key, (void)value;
	return 0;
}

/* Call what is due, if its element is still there. */
UXDP_INLINE void timer_call(const struct timer *timer, u32 callback)
{
	const struct uxdp_map *map = uxdp_timer_map(timer->map);
	u64 key[TIMER_MAX_KEY / 8] = {0};
	u8 *value;

	if (!map)
		return;
	if (map->kind == BPF_MAP_TYPE_ARRAY) {
		key[0] = timer->slot;
		value = array_element(map, map->store, timer->slot);
	} else {
		if (map->key_size > TIMER_MAX_KEY)
			return;
		load_key(key, hash_key_of(map, map->cpu_store, timer->slot), map->key_size);
		if (hash_find(map, map->cpu_store, key).element != timer->slot + 1)
			return;
		value = hash_value_of(map, map->cpu_store, timer->slot);
	}
	uxdp_timer_callback(callback, map, key, value);
}

/* What comes up first in a worker's heap, which says that it is due by now. */
UXDP_INLINE void timer_comes_up(struct uxdp_timers *all, struct timer_heap *heap, u64 now)
{
	struct timer_node node = heap->nodes[0];
	struct timer *timer = timer_at(all, node.place);
	const struct timer_handle *handle;
	u32 callback = 0;
	u64 expires;

	if (!seqlock_lock(&timer->lock)) {
		heap_remove_first(all, heap);
		return;
	}
	handle = (const struct timer_handle *)timer->handle;
	expires = timer->expires;
	if (timer->owner == uxdp_worker.cpu && expires > now) {
		heap->nodes[0].expires = expires; /* put off */
		heap_down(all, heap, 0);
		seqlock_unlock(&timer->lock);
		return;
	}
	heap_remove_first(all, heap);
	if (expires && timer->owner == uxdp_worker.cpu && handle->generation == timer->generation &&
	    handle->place == node.place) {
		callback = timer->callback;
		timer->running = uxdp_worker.cpu + 1;
		timer->expires = 0;
	}
	seqlock_unlock(&timer->lock);
	if (callback) {
		uxdp_worker.in_timer = true;
		timer_call(timer, callback);
		uxdp_worker.in_timer = false;
	}
	__atomic_store_n(&timer->running, 0, __ATOMIC_RELEASE);
}

/* Call so many of those that are due by a time. */
UXDP_COLD void timers_run(u64 now, u32 at_most)
{
	struct uxdp_timers *all = uxdp_worker.timers;
	struct timer_heap *heap = timer_heap(all, uxdp_worker.cpu);
	struct uxdp_frame none = {0}, *frame = uxdp_worker.frame;

	uxdp_worker.frame = &none; /* callbacks have no frame; what they note of one is lost */
	for (u32 i = 0; i < at_most && heap->used && heap->nodes[0].expires <= now; i++)
		timer_comes_up(all, heap, now);
	uxdp_worker.frame = frame;
	note_next(heap);
}

#endif
