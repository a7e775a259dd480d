/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Which element of an LRU map goes when room is needed.
 *
 * The lists, their sizes and the order of steps are the kernel's, so that with as many CPUs as the
 * kernel has, and one of them working, the same elements go. An LRU has an active, an inactive and
 * a free list. Normally all CPUs share one LRU, and each has two local lists: free elements, of
 * which it fetches up to 128 at once, and pending ones, which it gave out and which enter the LRU
 * at the next fetch. With BPF_F_NO_COMMON_LRU each CPU has an LRU and a share of the elements, and
 * no local lists. A lookup marks the element ("ref"), nothing else.
 *
 * Lists are circular and linked by element numbers; their heads are the elements beyond the map's
 * capacity. Elements that were never used are in no list: an LRU takes them in ascending order when
 * its free list is empty, so that the memory of a large map stays untouched.
 *
 * Locks are taken in the order local lists, LRU, bucket. The control plane acts as CPU 0.
 *
 * References: kernel/bpf/bpf_lru_list.c; prealloc_lru_pop() and htab_lru_map_delete_node(),
 * kernel/bpf/hashtab.c
 */
#ifndef UXDP_MAPS_LRU_H
#define UXDP_MAPS_LRU_H

#include "hash_find.h"

enum lru_list {
	LRU_ACTIVE = 0,
	LRU_INACTIVE = 1,
	LRU_FREE = 2,
	LRU_LOCAL_FREE = 3,
	LRU_PENDING = 4,
};

#define LRU_NONE UINT32_MAX

/* One LRU at work: everything that would otherwise be computed from the definition again and again.
 */
struct lru {
	const struct uxdp_map *map;
	struct hash_cpu *state;
	u8 *nodes;
	u64 stride;
	u32 heads;  /* number of the head of the active list */
	u32 locals; /* ... of the local free list of CPU 0 */
	u32 scans;  /* how many elements one step looks at */
	u32 target; /* how many elements to make free at once */
};

static struct lru lru_of(const struct uxdp_map *map, u32 cpu)
{
	u32 capacity = hash_capacity(map);
	bool common = !hash_has_cpu_lrus(map);
	u32 share = capacity / map->num_cpus / 2;
	struct lru lru = {
	    .map = map,
	    .state = &hash_header(map)->cpu[common ? map->num_cpus : cpu],
	    .nodes = hash_element(map, 0),
	    .stride = hash_stride(map),
	    .heads = capacity + (common ? 0 : 3 * cpu),
	    .locals = capacity + 3,
	    .scans = common ? 128 : 4,
	    .target = 4,
	};

	if (common)
		lru.target = share < 1 ? 1 : share > 128 ? 128 : share;
	return lru;
}

UXDP_INLINE struct lru_node *node_of(const struct lru *lru, u32 number)
{
	return (struct lru_node *)(lru->nodes + number * lru->stride);
}

UXDP_INLINE u32 number_of_list(const struct lru *lru, enum lru_list list, u32 cpu)
{
	if (list < LRU_LOCAL_FREE)
		return lru->heads + list;
	return lru->locals + 2 * cpu + (list - LRU_LOCAL_FREE);
}

UXDP_INLINE bool node_ref(const struct lru_node *node)
{
	return __atomic_load_n(&node->ref, __ATOMIC_RELAXED);
}

UXDP_INLINE void set_node_ref(struct lru_node *node, u8 ref)
{
	__atomic_store_n(&node->ref, ref, __ATOMIC_RELAXED);
}

UXDP_INLINE u32 node_list(const struct lru_node *node)
{
	return __atomic_load_n(&node->list, __ATOMIC_RELAXED);
}

UXDP_INLINE void unlink_node(const struct lru *lru, u32 number)
{
	struct lru_node *node = node_of(lru, number);

	node_of(lru, node->previous)->next = node->next;
	node_of(lru, node->next)->previous = node->previous;
}

UXDP_INLINE void link_node(const struct lru *lru, u32 number, enum lru_list list, u32 previous)
{
	struct lru_node *node = node_of(lru, number);

	node->next = node_of(lru, previous)->next;
	node->previous = previous;
	node_of(lru, node->next)->previous = number;
	node_of(lru, previous)->next = number;
	__atomic_store_n(&node->list, list, __ATOMIC_RELAXED);
}

/* Link an element that is in no list. */
UXDP_INLINE void push_node(const struct lru *lru, u32 number, enum lru_list list, u32 cpu)
{
	link_node(lru, number, list, number_of_list(lru, list, cpu));
}

/* ... at the end: what is made free first is given out first. */
UXDP_INLINE void append_node(const struct lru *lru, u32 number, enum lru_list list, u32 cpu)
{
	link_node(lru, number, list, node_of(lru, number_of_list(lru, list, cpu))->previous);
}

/* From one list to the front of another; the lists' locks are held. */
static void move_node(const struct lru *lru, u32 number, enum lru_list list, u32 cpu)
{
	struct lru_node *node = node_of(lru, number);
	u32 from = node_list(node);

	if (from <= LRU_INACTIVE)
		lru->state->lru_count[from]--;
	if (list <= LRU_INACTIVE)
		lru->state->lru_count[list]++;
	if (from < LRU_LOCAL_FREE && number == lru->state->lru_rotation)
		lru->state->lru_rotation = node->previous;
	if (list < LRU_LOCAL_FREE)
		set_node_ref(node, 0);
	unlink_node(lru, number);
	push_node(lru, number, list, cpu);
}

/* What was evicted becomes free. */
static void move_evicted(const struct lru *lru, u32 number, enum lru_list list, u32 cpu)
{
	move_node(lru, number, list, cpu);
	if (list == LRU_LOCAL_FREE) {
		unlink_node(lru, number);
		append_node(lru, number, list, cpu);
	}
}

static void rotate_active(const struct lru *lru)
{
	u32 head = number_of_list(lru, LRU_ACTIVE, 0);
	u32 first = node_of(lru, head)->next;
	u32 number = node_of(lru, head)->previous;

	for (u32 i = 0; i < lru->scans && number != head; i++) {
		u32 previous = node_of(lru, number)->previous;

		move_node(lru, number, node_ref(node_of(lru, number)) ? LRU_ACTIVE : LRU_INACTIVE,
			  0);
		if (number == first)
			break;
		number = previous;
	}
}

static void rotate_inactive(const struct lru *lru)
{
	u32 head = number_of_list(lru, LRU_INACTIVE, 0);
	u32 current = lru->state->lru_rotation;
	u32 last, previous = head;

	if (node_of(lru, head)->next == head)
		return;
	last = node_of(lru, current)->next;
	if (last == head)
		last = node_of(lru, last)->next;

	for (u32 i = 0; i < lru->scans;) {
		if (current == head) {
			current = node_of(lru, current)->previous;
			continue;
		}
		previous = node_of(lru, current)->previous;
		if (node_ref(node_of(lru, current)))
			move_node(lru, current, LRU_ACTIVE, 0);
		if (current == last)
			break;
		current = previous;
		i++;
	}
	lru->state->lru_rotation = previous;
}

static void rotate(const struct lru *lru)
{
	if (lru->state->lru_count[LRU_INACTIVE] < lru->state->lru_count[LRU_ACTIVE])
		rotate_active(lru);
	rotate_inactive(lru);
}

static bool hash_evict(const struct uxdp_map *map, u32 number, u32 home);

static bool evict(const struct lru *lru, u32 number)
{
	return hash_evict(lru->map, number, node_of(lru, number)->home);
}

/* Evict elements, oldest first, and put them into a list; if all were looked up, evict one
 * nevertheless. */
static void shrink(const struct lru *lru, u32 target, enum lru_list list, u32 cpu)
{
	u32 head = number_of_list(lru, LRU_INACTIVE, 0);
	u32 number = node_of(lru, head)->previous;
	u32 evicted = 0;

	for (u32 i = 0; i < lru->scans && number != head; i++) {
		u32 previous = node_of(lru, number)->previous;

		if (node_ref(node_of(lru, number))) {
			move_node(lru, number, LRU_ACTIVE, 0);
		} else if (evict(lru, number)) {
			move_evicted(lru, number, list, cpu);
			if (++evicted == target)
				break;
		}
		number = previous;
	}
	if (evicted)
		return;

	if (node_of(lru, head)->next == head)
		head = number_of_list(lru, LRU_ACTIVE, 0);
	for (number = node_of(lru, head)->previous; number != head;) {
		u32 previous = node_of(lru, number)->previous;

		if (evict(lru, number)) {
			move_evicted(lru, number, list, cpu);
			return;
		}
		number = previous;
	}
}

/* An element that was never used, or LRU_NONE. */
static u32 pop_fresh(const struct lru *lru)
{
	struct hash_cpu *state = lru->state;

	return state->lru_fresh < state->lru_fresh_end ? state->lru_fresh++ : LRU_NONE;
}

static u32 pop_list(const struct lru *lru, enum lru_list list, u32 cpu)
{
	u32 head = number_of_list(lru, list, cpu);
	u32 number = node_of(lru, head)->next;

	if (number == head)
		return LRU_NONE;
	unlink_node(lru, number);
	return number;
}

/* What this CPU gave out enters the LRU, and its local free list is filled. */
static void refill(const struct lru *lru, u32 cpu)
{
	u32 pending = number_of_list(lru, LRU_PENDING, cpu);
	u32 count, number;

	if (!seqlock_lock(&lru->state->lru_lock))
		return;
	for (number = node_of(lru, pending)->previous; number != pending;) {
		u32 previous = node_of(lru, number)->previous;

		move_node(lru, number, node_ref(node_of(lru, number)) ? LRU_ACTIVE : LRU_INACTIVE,
			  0);
		number = previous;
	}
	rotate(lru);
	for (count = 0; count < lru->target; count++) {
		number = pop_list(lru, LRU_FREE, 0);
		if (number == LRU_NONE)
			number = pop_fresh(lru);
		if (number == LRU_NONE)
			break;
		append_node(lru, number, LRU_LOCAL_FREE, cpu);
	}
	if (count < lru->target)
		shrink(lru, lru->target - count, LRU_LOCAL_FREE, cpu);
	seqlock_unlock(&lru->state->lru_lock);
}

/* The oldest pending element of a CPU, rather one that was not looked up. */
static u32 pop_pending(const struct lru *lru, u32 cpu)
{
	u32 head = number_of_list(lru, LRU_PENDING, cpu);

	for (u32 pass = 0; pass < 2; pass++) {
		for (u32 number = node_of(lru, head)->previous; number != head;
		     number = node_of(lru, number)->previous) {
			if ((pass == 0 && node_ref(node_of(lru, number))) || !evict(lru, number))
				continue;
			unlink_node(lru, number);
			return number;
		}
	}
	return LRU_NONE;
}

static void push_pending(const struct lru *lru, u32 number, u32 cpu, u32 home)
{
	struct lru_node *node = node_of(lru, number);

	node->home = home;
	node->cpu = cpu;
	set_node_ref(node, 0);
	push_node(lru, number, LRU_PENDING, cpu);
}

static u32 pop_common(const struct lru *lru, u32 cpu, u32 home)
{
	struct hash_cpu *cpus = hash_header(lru->map)->cpu;
	u32 number, victim, first;

	if (!seqlock_lock(&cpus[cpu].lock))
		return LRU_NONE;
	number = pop_list(lru, LRU_LOCAL_FREE, cpu);
	if (number == LRU_NONE) {
		refill(lru, cpu);
		number = pop_list(lru, LRU_LOCAL_FREE, cpu);
	}
	if (number != LRU_NONE)
		push_pending(lru, number, cpu, home);
	victim = cpus[cpu].steal;
	seqlock_unlock(&cpus[cpu].lock);
	if (number != LRU_NONE)
		return number;

	/* All elements are in local lists. */
	first = victim;
	do {
		if (seqlock_lock(&cpus[victim].lock)) {
			number = pop_list(lru, LRU_LOCAL_FREE, victim);
			if (number == LRU_NONE)
				number = pop_pending(lru, victim);
			seqlock_unlock(&cpus[victim].lock);
		}
		victim = victim + 1 == lru->map->num_cpus ? 0 : victim + 1;
	} while (number == LRU_NONE && victim != first);

	if (!seqlock_lock(&cpus[cpu].lock)) {
		/* Nobody else can have it: it is lost if this CPU's lock is dead, and with it the
		 * CPU's others. */
		return LRU_NONE;
	}
	cpus[cpu].steal = victim;
	if (number != LRU_NONE)
		push_pending(lru, number, cpu, home);
	seqlock_unlock(&cpus[cpu].lock);
	return number;
}

static u32 pop_own(const struct lru *lru, u32 cpu, u32 home)
{
	struct lru_node *node;
	u32 number;

	if (!seqlock_lock(&lru->state->lru_lock))
		return LRU_NONE;
	rotate(lru);
	number = pop_list(lru, LRU_FREE, 0);
	if (number == LRU_NONE)
		number = pop_fresh(lru);
	if (number == LRU_NONE) {
		shrink(lru, lru->target, LRU_FREE, 0);
		number = pop_list(lru, LRU_FREE, 0);
	}
	if (number != LRU_NONE) {
		node = node_of(lru, number);
		node->home = home;
		node->cpu = cpu;
		set_node_ref(node, 0);
		push_node(lru, number, LRU_INACTIVE, 0);
		lru->state->lru_count[LRU_INACTIVE]++;
	}
	seqlock_unlock(&lru->state->lru_lock);
	return number;
}

/* An element for a key of this home bucket, evicted from another key if need be; LRU_NONE: there is
 * none. */
UXDP_COLD u32 lru_pop(const struct uxdp_map *map, u32 cpu, u32 home)
{
	struct lru lru = lru_of(map, cpu);

	return hash_has_cpu_lrus(map) ? pop_own(&lru, cpu, home) : pop_common(&lru, cpu, home);
}

/* Give back an element that is in no bucket. */
UXDP_COLD void lru_push(const struct uxdp_map *map, u32 number)
{
	u32 cpu = lru_node(map, number)->cpu;
	struct lru lru = lru_of(map, cpu);
	struct hash_cpu *local = &hash_header(map)->cpu[cpu];

	if (node_list(node_of(&lru, number)) == LRU_PENDING) {
		if (!seqlock_lock(&local->lock))
			return;
		if (node_list(node_of(&lru, number)) == LRU_PENDING) {
			move_node(&lru, number, LRU_LOCAL_FREE, cpu);
			set_node_ref(node_of(&lru, number), 0);
			seqlock_unlock(&local->lock);
			return;
		}
		seqlock_unlock(&local->lock);
	}
	if (!seqlock_lock(&lru.state->lru_lock))
		return;
	move_node(&lru, number, LRU_FREE, 0);
	seqlock_unlock(&lru.state->lru_lock);
}

static void lru_init(const struct uxdp_map *map)
{
	u32 capacity = hash_capacity(map), extra = hash_extra_elements(map);
	u32 lrus = hash_has_cpu_lrus(map) ? map->num_cpus : 1;
	struct lru lru;

	for (u32 number = capacity; number < capacity + extra; number++) {
		lru_node(map, number)->next = number;
		lru_node(map, number)->previous = number;
	}
	for (u32 cpu = 0; cpu < lrus; cpu++) {
		lru = lru_of(map, cpu);
		lru.state->lru_rotation = number_of_list(&lru, LRU_INACTIVE, 0);
		lru.state->lru_fresh = cpu * (capacity / lrus);
		lru.state->lru_fresh_end = (cpu + 1) * (capacity / lrus);
	}
	for (u32 cpu = 0; cpu < map->num_cpus; cpu++)
		hash_header(map)->cpu[cpu].steal = cpu;
}

#endif
