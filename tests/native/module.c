/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The native library as an object for tests: maps are arguments here, not constants, and the
 * program is whatever function the test sets.
 */
#include "../../runtime/uxdp_runtime/native/uxdp.c"

UXDP_WORKER_STORAGE struct uxdp_worker uxdp_worker;
struct uxdp_kernel uxdp_kernel;

/* Room for a few inner maps. */
u8 uxdp_pool[32u << 20] __attribute__((aligned(PAGE_SIZE)));
const struct uxdp_map *const uxdp_declared[1];

void test_burst_begins(void)
{
	burst_begins();
}

void test_burst_ends(void)
{
	burst_ends();
}

u64 *test_burst_of(u32 cpu)
{
	return &pool_worker(cpu)->burst;
}

struct pool_map *test_pool_map(u32 number, u32 num_cpus)
{
	return (struct pool_map *)pool_map(number, num_cpus);
}

u32 (*test_program)(struct uxdp_frame *frame);

u32 uxdp_program(struct uxdp_frame *frame)
{
	return test_program(frame);
}

/* While nobody uses an LRU map: are all elements in one list each, and are those of the LRU
 * counted? */
bool test_lru_is_consistent(const struct uxdp_map *map)
{
	u32 capacity = hash_capacity(map), lrus = hash_has_cpu_lrus(map) ? map->num_cpus : 1,
	    total = 0;

	for (u32 cpu = 0; cpu < lrus; cpu++) {
		struct lru lru = lru_of(map, cpu);
		u32 last =
		    capacity + (hash_has_cpu_lrus(map) ? 3 * (cpu + 1) : hash_extra_elements(map));

		for (u32 head = lru.heads; head < last; head++) {
			u32 in_list = 0, list = head - lru.heads;

			if (list >= LRU_LOCAL_FREE)
				list = LRU_LOCAL_FREE + (list - LRU_LOCAL_FREE) % 2;
			for (u32 number = node_of(&lru, head)->next; number != head;
			     number = node_of(&lru, number)->next) {
				const struct lru_node *node = node_of(&lru, number);

				if (number >= capacity || node->list != list ||
				    ++in_list > capacity ||
				    node_of(&lru, node->next)->previous != number)
					return false;
			}
			if (list <= LRU_INACTIVE && in_list != lru.state->lru_count[list])
				return false;
			total += in_list;
		}
		total += lru.state->lru_fresh_end - lru.state->lru_fresh;
	}
	return total == capacity;
}
