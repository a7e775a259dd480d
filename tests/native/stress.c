/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Workers and a control plane at the same maps, for a given time; run under ThreadSanitizer and
 *AddressSanitizer by tests/unit/test_native_stress.py.
 *
 *	stress MILLISECONDS
 *
 * What holds for every interleaving is checked while it runs, and what may be left over, and must
 *not be lost, when it is over. Values begin with the key's number. A value may change under who
 *holds a pointer to it, if the key is deleted or updated; then looking the key up again shows that
 *the element was replaced.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define UXDP_WORKER_STORAGE __thread
#include "../../runtime/uxdp_runtime/native/abi.h"

#define WORKERS 3
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __func__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

enum { HASH = 1, PERCPU_HASH = 5, LRU_HASH = 9, LRU_PERCPU_HASH = 10, LPM_TRIE = 11 };
enum {
	PERF_EVENT_ARRAY = 4,
	ARRAY_OF_MAPS = 12,
	QUEUE = 22,
	STACK,
	RINGBUF = 27,
	BLOOM_FILTER = 30,
	USER_RINGBUF
};

struct pool_map {
	struct uxdp_map map;
	u64 cpu_first, cpu_stride;
};
enum { ARRAY = 2 };
enum { ANY, NOEXIST, EXIST, LOCK = 4 };

extern void test_burst_begins(void);
extern void test_burst_ends(void);
extern u64 *test_burst_of(u32 cpu);
extern struct pool_map *test_pool_map(u32 number, u32 num_cpus);
extern bool test_lru_is_consistent(const struct uxdp_map *map);
extern void *uxdp_helper_map_lookup_elem(const struct uxdp_map *map, const void *key);
extern s64 uxdp_helper_map_update_elem(const struct uxdp_map *map, const void *key,
				       const void *value, u64 flags);
extern s64 uxdp_helper_map_delete_elem(const struct uxdp_map *map, const void *key);
extern void *uxdp_helper_ringbuf_reserve(const struct uxdp_map *map, u64 size, u64 flags);
extern s64 uxdp_helper_ringbuf_submit(void *sample, u64 flags);
extern s64 uxdp_helper_ringbuf_discard(void *sample, u64 flags);
extern s64 uxdp_helper_spin_lock(u32 *lock);
extern s64 uxdp_helper_spin_unlock(u32 *lock);
extern s64 uxdp_helper_for_each_map_elem(const struct uxdp_map *map,
					 s64 (*callback)(const struct uxdp_map *, const void *,
							 void *, void *),
					 void *context, u64 flags);
extern s64 uxdp_helper_dynptr_read(void *to, u64 len, const void *dynptr, u64 offset, u64 flags);
extern s64 uxdp_helper_user_ringbuf_drain(const struct uxdp_map *map,
					  s64 (*callback)(void *, void *), void *context,
					  u64 flags);
extern s64 uxdp_helper_map_push_elem(const struct uxdp_map *map, const void *value, u64 flags);
extern s64 uxdp_helper_map_pop_elem(const struct uxdp_map *map, void *value);
extern s64 uxdp_helper_map_peek_elem(const struct uxdp_map *map, void *value);
extern s64 uxdp_helper_perf_event_output(struct uxdp_frame *frame, const struct uxdp_map *map,
					 u64 flags, const void *data, u64 size);

/* Nothing to do for the control plane. */
static void *idle(void *argument)
{
	return argument;
}

struct value {
	u64 number;
	u64 count;
};

static bool stop;
static struct uxdp_map shared;
static u64 totals[WORKERS + 1]; /* what each thread counted or made */

static bool running(void)
{
	return !__atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static u64 draw(u64 *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 33;
}

/* Keys of 16 bytes, so that a torn one would show. */
static void make_key(u64 key[2], u64 number)
{
	key[0] = number * 0x9e3779b97f4a7c15ull;
	key[1] = ~key[0];
}

static struct uxdp_map for_cpu(u32 cpu)
{
	struct uxdp_map map = shared;

	uxdp_worker.cpu = cpu;
	uxdp_worker.num_cpus = WORKERS;
	map.cpu_store = (u8 *)map.store + uxdp_store_cpu_offset(&map, cpu);
	return map;
}

static u64 number_of(const struct value *value)
{
	return __atomic_load_n(&value->number, __ATOMIC_ACQUIRE);
}

static void create(u32 kind, u32 key_size, u32 value_size, u32 max_entries, u32 flags)
{
	shared =
	    (struct uxdp_map){kind, key_size, value_size, max_entries, flags, .num_cpus = WORKERS};
	shared.store = mmap(NULL, uxdp_store_bytes(&shared), PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(shared.store != MAP_FAILED);
	CHECK(uxdp_store_init(&shared) == 0);
}

static void run(void *(*worker)(void *), void *(*control)(void *), u64 milliseconds)
{
	struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
	pthread_t threads[WORKERS + 1];

	__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
	memset(totals, 0, sizeof(totals));
	for (u64 i = 0; i < WORKERS; i++)
		CHECK(!pthread_create(&threads[i], NULL, worker, (void *)i));
	CHECK(!pthread_create(&threads[WORKERS], NULL, control, (void *)(u64)WORKERS));
	nanosleep(&pause, NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (u64 i = 0; i <= WORKERS; i++)
		CHECK(!pthread_join(threads[i], NULL));
}

/* --- hash maps --- */

#define COUNTED 8  /* keys that stay and whose values are counted up by everybody */
#define REPLACED 8 /* keys that stay and are updated by everybody */
#define OWN 24	   /* keys that each thread adds and deletes for itself */
#define ALL (COUNTED + REPLACED + (WORKERS + 1) * OWN)

static void look_at_replaced(const struct uxdp_map *map, u64 number)
{
	u64 key[2];

	make_key(key, number);
	for (u32 i = 0;; i++) {
		const struct value *value = uxdp_helper_map_lookup_elem(map, key);

		CHECK(value); /* it is there all the time */
		if (number_of(value) == number)
			return;
		CHECK(i < 1000);
	}
}

static void *hash_worker(void *argument)
{
	u64 me = (u64)argument, random = me + 1, key[2];
	struct uxdp_map map = for_cpu(me);
	u64 first = COUNTED + REPLACED + me * OWN;
	bool there[OWN] = {false};

	while (running()) {
		u64 number = draw(&random) % COUNTED;
		struct value *value, fresh = {0};

		make_key(key, number);
		value = uxdp_helper_map_lookup_elem(&map, key);
		CHECK(value && number_of(value) == number);
		__atomic_fetch_add(&value->count, 1, __ATOMIC_RELAXED);
		totals[me]++;

		number = COUNTED + draw(&random) % REPLACED;
		look_at_replaced(&map, number);
		make_key(key, number);
		fresh.number = number;
		CHECK(uxdp_helper_map_update_elem(&map, key, &fresh,
						  draw(&random) % 2 ? ANY : EXIST) == 0);
		CHECK(uxdp_helper_map_update_elem(&map, key, &fresh, NOEXIST) == -EEXIST);

		for (u32 i = 0; i < 4; i++) {
			u32 own = draw(&random) % OWN;
			s64 result;

			make_key(key, first + own);
			value = uxdp_helper_map_lookup_elem(&map, key);
			CHECK(!value == !there[own]);
			if (value)
				CHECK(number_of(value) == first + own);
			fresh.number = first + own;
			if (there[own]) {
				CHECK(uxdp_helper_map_delete_elem(&map, key) == 0);
				there[own] = false;
			} else {
				result = uxdp_helper_map_update_elem(&map, key, &fresh, NOEXIST);
				CHECK(result == 0 || result == -E2BIG);
				there[own] = !result;
			}
		}
	}
	return NULL;
}

static void *hash_control(void *argument)
{
	u64 me = (u64)argument, random = me + 1, key[2], next[2];
	u64 first = COUNTED + REPLACED + me * OWN;
	struct value values[WORKERS] = {{0}};
	bool there[OWN] = {false};

	while (running()) {
		u64 number = COUNTED + draw(&random) % REPLACED;
		u32 own = draw(&random) % OWN, stable = 0, seen = 0;
		s64 result;

		for (u32 cpu = 0; cpu < WORKERS; cpu++)
			values[cpu].number = number;
		make_key(key, number);
		CHECK(uxdp_map_update(&shared, key, values, EXIST) == 0);

		make_key(key, first + own);
		CHECK(uxdp_map_lookup(&shared, key, values) == (there[own] ? 0 : -ENOENT));
		for (u32 cpu = 0; cpu < WORKERS; cpu++)
			values[cpu].number = first + own;
		if (there[own]) {
			CHECK(uxdp_map_delete(&shared, key) == 0);
			there[own] = false;
		} else {
			result = uxdp_map_update(&shared, key, values, NOEXIST);
			CHECK(result == 0 || result == -E2BIG);
			there[own] = !result;
		}

		for (const void *at = NULL; uxdp_map_next_key(&shared, at, next) == 0; at = key) {
			memcpy(key, next, sizeof(key));
			CHECK(key[1] == ~key[0]);
			for (u32 i = 0; i < COUNTED; i++)
				stable += key[0] == i * 0x9e3779b97f4a7c15ull;
			/* Whoever enumerates while keys are deleted starts again, so it may never
			 * end. */
			if (++seen == 4 * ALL)
				break;
		}
		CHECK(stable >= COUNTED || seen == 4 * ALL);
	}
	return NULL;
}

/* Nothing may be lost: after all that, the map takes exactly as many keys as it should. */
static void check_capacity(void)
{
	struct value values[WORKERS] = {{0}};
	u64 key[2];

	while (uxdp_map_next_key(&shared, NULL, key) == 0)
		CHECK(uxdp_map_delete(&shared, key) == 0);
	for (u64 i = 0; i < shared.max_entries; i++) {
		make_key(key, 1000000 + i);
		CHECK(uxdp_map_update(&shared, key, values, NOEXIST) == 0);
	}
	make_key(key, 0);
	CHECK(uxdp_map_update(&shared, key, values, ANY) == -E2BIG);
}

static void stress_hash(u32 kind, u64 milliseconds)
{
	struct value values[WORKERS] = {{0}};
	u64 key[2], wanted = 0, counted = 0;

	/* Room for less than everything, so that the map is full now and then. */
	create(kind, sizeof(key), sizeof(struct value), ALL - OWN, 0);
	for (u64 number = 0; number < COUNTED + REPLACED; number++) {
		for (u32 cpu = 0; cpu < WORKERS; cpu++)
			values[cpu].number = number;
		make_key(key, number);
		CHECK(uxdp_map_update(&shared, key, values, NOEXIST) == 0);
	}
	run(hash_worker, hash_control, milliseconds);
	for (u32 i = 0; i < WORKERS; i++)
		wanted += totals[i];
	for (u64 number = 0; number < COUNTED; number++) {
		make_key(key, number);
		CHECK(uxdp_map_lookup(&shared, key, values) == 0);
		for (u32 cpu = 0; cpu < (kind == HASH ? 1 : WORKERS); cpu++)
			counted += values[cpu].count;
	}
	CHECK(counted == wanted);
	check_capacity();
	printf("hash kind %u: %lu rounds\n", kind, (unsigned long)wanted);
}

/* --- LRU --- */

static void *lru_worker(void *argument)
{
	u64 me = (u64)argument, random = me + 1, key[2];
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		u64 number = draw(&random) % 600;
		struct value fresh = {number, 0};
		const struct value *value;
		s64 result;

		make_key(key, number);
		value = uxdp_helper_map_lookup_elem(&map, key);
		for (u32 i = 0; value && number_of(value) != number; i++) {
			/* What another worker added is zero here. */
			if (map.kind == LRU_PERCPU_HASH && number_of(value) == 0)
				break;
			value = uxdp_helper_map_lookup_elem(&map, key);
			CHECK(i < 1000);
		}
		if (draw(&random) % 8 == 0) {
			result = uxdp_helper_map_delete_elem(&map, key);
			CHECK(result == 0 || result == -ENOENT);
		} else if (!value || draw(&random) % 4 == 0) {
			result = uxdp_helper_map_update_elem(&map, key, &fresh,
							     draw(&random) % 2 ? ANY : NOEXIST);
			CHECK(result == 0 || result == -EEXIST || result == -ENOMEM);
		}
		totals[me]++;
	}
	return NULL;
}

static void *lru_control(void *argument)
{
	u64 me = (u64)argument, random = me + 1, key[2];
	struct value values[WORKERS] = {{0}};

	while (running()) {
		u64 number = draw(&random) % 600;
		s64 result;

		make_key(key, number);
		for (u32 cpu = 0; cpu < WORKERS; cpu++)
			values[cpu].number = number;
		result = uxdp_map_update(&shared, key, values, ANY);
		CHECK(result == 0 || result == -ENOMEM);
		make_key(key, draw(&random) % 600);
		result = uxdp_map_delete(&shared, key);
		CHECK(result == 0 || result == -ENOENT);
		totals[me]++;
	}
	return NULL;
}

static void stress_lru(u32 kind, u32 flags, u64 milliseconds)
{
	u64 key[2], next[2];
	u32 keys = 0;

	create(kind, sizeof(key), sizeof(struct value), 300, flags);
	run(lru_worker, lru_control, milliseconds);
	for (const void *at = NULL; uxdp_map_next_key(&shared, at, next) == 0; at = key, keys++)
		memcpy(key, next, sizeof(key));
	CHECK(keys <= 300);
	CHECK(test_lru_is_consistent(&shared));
	printf("lru kind %u flags %u: %lu rounds, %u keys left\n", kind, flags,
	       (unsigned long)totals[0], keys);
}

/* --- LPM: 10.0.0.0/8 and 10.1.0.0/16 stay; longer ones, and other short ones, come and go --- */

struct prefix {
	u32 length;
	u8 address[4];
};

static struct prefix random_prefix(u64 *random)
{
	struct prefix prefix = {.length = 17 + draw(random) % 16, .address = {10, 1}};

	prefix.address[2] = draw(random) % 4;
	prefix.address[3] = draw(random);
	if (draw(random) % 16 == 0)
		prefix = (struct prefix){9 + draw(random) % 6, {10, draw(random)}};
	if (prefix.length < 16)
		prefix.address[1] &= 0xff00 >> (prefix.length - 8);
	return prefix;
}

static void *lpm_worker(void *argument)
{
	u64 me = (u64)argument, random = me + 1;
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		struct prefix key = {32, {10, 1, draw(&random) % 4, draw(&random)}};
		u32 bits = __builtin_bswap32(*(u32 *)key.address);

		for (u32 i = 0;; i++) {
			const u64 *value = uxdp_helper_map_lookup_elem(&map, &key);
			u64 word, length;

			CHECK(value);
			word = __atomic_load_n(value, __ATOMIC_ACQUIRE);
			length = word >> 32;
			/* The value is a prefix: it must match, and be no shorter than the one that
			 * stays. */
			if (length >= 16 && length <= 32 &&
			    !((u64)(bits ^ (u32)word) >> (32 - length)))
				break;
			CHECK(i < 1000);
		}
		totals[me]++;
	}
	return NULL;
}

static u64 prefix_value(const struct prefix *prefix)
{
	return (u64)prefix->length << 32 | __builtin_bswap32(*(u32 *)prefix->address);
}

static void *lpm_control(void *argument)
{
	u64 me = (u64)argument, random = me + 1;

	while (running()) {
		struct prefix prefix = random_prefix(&random);
		u64 value = prefix_value(&prefix);
		s64 result = uxdp_map_update(&shared, &prefix, &value, ANY);

		CHECK(result == 0 || result == -ENOSPC);
		prefix = random_prefix(&random);
		result = uxdp_map_delete(&shared, &prefix);
		CHECK(result == 0 || result == -ENOENT);
		totals[me]++;
	}
	return NULL;
}

static void stress_lpm(u64 milliseconds)
{
	struct prefix stay[] = {{8, {10}}, {16, {10, 1}}}, key, next;
	u64 value, entries;

	create(LPM_TRIE, 8, 8, 400, 1);
	for (u32 i = 0; i < 2; i++) {
		value = prefix_value(&stay[i]);
		CHECK(uxdp_map_update(&shared, &stay[i], &value, ANY) == 0);
	}
	run(lpm_worker, lpm_control, milliseconds);
	while (uxdp_map_next_key(&shared, NULL, &key) == 0)
		CHECK(uxdp_map_delete(&shared, &key) == 0);
	for (entries = 0;; entries++) {
		next = (struct prefix){32, {11, 0, entries >> 8, entries}};
		if (uxdp_map_update(&shared, &next, &value, NOEXIST))
			break;
	}
	CHECK(entries == 400);
	printf("lpm: %lu lookups, %lu changes\n", (unsigned long)totals[0],
	       (unsigned long)totals[WORKERS]);
}

/* --- ring buffer --- */

struct event {
	u64 producer;
	u64 sequence;
	u64 words[];
};

static void *ringbuf_worker(void *argument)
{
	u64 me = (u64)argument, random = me + 1, sequence = 0;
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		u64 words = draw(&random) % 40;
		struct event *event =
		    uxdp_helper_ringbuf_reserve(&map, sizeof(*event) + words * 8, 0);

		if (!event) {
			sched_yield();
			continue;
		}
		event->producer = me;
		event->sequence = sequence;
		for (u64 i = 0; i < words; i++)
			event->words[i] = sequence + i;
		if (draw(&random) % 4 == 0) {
			uxdp_helper_ringbuf_discard(event, 0);
		} else {
			uxdp_helper_ringbuf_submit(event, 0);
			sequence++;
		}
	}
	__atomic_store_n(&totals[me], sequence, __ATOMIC_RELAXED);
	return NULL;
}

static u64 consumed[WORKERS];

static void consume_all(void)
{
	static u64 buffer[1024];
	s64 used;

	while ((used = uxdp_ringbuf_consume(&shared, buffer, sizeof(buffer))) > 0) {
		for (s64 at = 0; at < used;) {
			u32 len = *(u32 *)((u8 *)buffer + at);
			const struct event *event = (void *)((u8 *)buffer + at + 8);

			CHECK(event->producer < WORKERS &&
			      event->sequence == consumed[event->producer]++);
			for (u64 i = 0; i < (len - sizeof(*event)) / 8; i++)
				CHECK(event->words[i] == event->sequence + i);
			at += 8 + (len + 7) / 8 * 8;
		}
	}
	CHECK(used == 0);
}

static void *ringbuf_control(void *argument)
{
	(void)argument;
	while (running())
		consume_all();
	return NULL;
}

static void stress_ringbuf(u64 milliseconds)
{
	create(RINGBUF, 0, 0, 4096, 0);
	memset(consumed, 0, sizeof(consumed));
	run(ringbuf_worker, ringbuf_control, milliseconds);
	consume_all();
	for (u32 i = 0; i < WORKERS; i++)
		CHECK(consumed[i] == totals[i]);
	printf("ringbuf: %lu records of one producer\n", (unsigned long)consumed[0]);
}

/* --- perf events --- */

static void *perf_worker(void *argument)
{
	u64 me = (u64)argument, full = 0;
	struct uxdp_map map = for_cpu(me);
	u8 packet[64] = {0};
	struct uxdp_frame frame = {.data = (u64)packet, .data_end = (u64)packet + sizeof(packet)};

	while (running()) {
		struct value value = {me, totals[me]};
		s64 result = uxdp_helper_perf_event_output(
		    &frame, &map, 0xffffffffull | (value.count & 63) << 32, &value, sizeof(value));

		CHECK(result == 0 || result == -ENOSPC);
		full += result != 0;
		totals[me] += result == 0;
		CHECK(uxdp_helper_perf_event_output(&frame, &map, (me + 1) % WORKERS, &value, 8) ==
		      -EOPNOTSUPP);
	}
	return NULL;
}

/* Every sample is read once, whole, in order. */
static void read_samples(u64 expected[WORKERS])
{
	static u8 buffer[1 << 16];

	for (u32 cpu = 0; cpu < WORKERS; cpu++) {
		struct uxdp_map ring = {.kind = RINGBUF, .max_entries = 4u << 20};
		s64 used;

		ring.store = (u8 *)shared.store + uxdp_store_cpu_offset(&shared, cpu);
		while ((used = uxdp_ringbuf_consume(&ring, buffer, sizeof(buffer))) > 0) {
			for (s64 at = 0; at < used;) {
				const u32 *length = (const u32 *)(buffer + at);
				const struct value *value = (const struct value *)(length + 2);

				CHECK(value->number == cpu && value->count == expected[cpu]);
				CHECK(*length == sizeof(*value) + (value->count & 63));
				expected[cpu]++;
				at += 8 + (*length + 7) / 8 * 8;
			}
		}
	}
}

static u64 samples[WORKERS];

static void *perf_control(void *argument)
{
	while (running())
		read_samples(samples);
	return argument;
}

static void stress_perf(u64 milliseconds)
{
	create(PERF_EVENT_ARRAY, 4, 4, WORKERS, 0);
	run(perf_worker, perf_control, milliseconds);
	read_samples(samples);
	for (u32 cpu = 0; cpu < WORKERS; cpu++)
		CHECK(samples[cpu] && samples[cpu] == totals[cpu]);
	printf("perf_event_array: %lu samples of one worker\n", (unsigned long)totals[0]);
}

/* --- queues and Bloom filters --- */

static u64 pushed[WORKERS + 1], popped[WORKERS + 1], pushes[WORKERS + 1], pops[WORKERS + 1];

/* What is pushed is popped once, whole; who pops twice sees one worker's values in their order. */
static void *queue_worker(void *argument)
{
	u64 me = (u64)argument, last[WORKERS + 1] = {0};
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		struct value value = {me, pushes[me] + 1};

		if (uxdp_helper_map_push_elem(&map, &value, ANY) == 0) {
			pushed[me] += value.count;
			pushes[me]++;
		}
		if (uxdp_helper_map_pop_elem(&map, &value) == 0) {
			CHECK(value.number <= WORKERS && value.count);
			CHECK(shared.kind == STACK || value.count > last[value.number]);
			last[value.number] = value.count;
			popped[me] += value.count;
			pops[me]++;
		}
	}
	return NULL;
}

static void stress_queue(u32 kind, u64 milliseconds)
{
	u64 in = 0, out = 0, left = 0;
	struct value value;

	create(kind, 0, sizeof(struct value), 64, 0);
	memset(pushed, 0, sizeof(pushed));
	memset(popped, 0, sizeof(popped));
	memset(pushes, 0, sizeof(pushes));
	memset(pops, 0, sizeof(pops));
	run(queue_worker, queue_worker, milliseconds);
	for (; uxdp_map_pop(&shared, &value) == 0; left++)
		out += value.count;
	for (u32 i = 0; i <= WORKERS; i++) {
		in += pushed[i];
		out += popped[i];
		left += pops[i];
		left -= pushes[i];
	}
	CHECK(in == out && left == 0);
	printf("%s: %lu values of one worker\n", kind == STACK ? "stack" : "queue",
	       (unsigned long)pushes[0]);
}

static void *bloom_worker(void *argument)
{
	u64 me = (u64)argument;
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		struct value value = {me, totals[me]++};

		CHECK(uxdp_helper_map_push_elem(&map, &value, ANY) == 0);
		value.count -= value.count % 7;
		CHECK(uxdp_helper_map_peek_elem(&map, &value) == 0);
	}
	return NULL;
}

static void stress_bloom(u64 milliseconds)
{
	create(BLOOM_FILTER, 0, sizeof(struct value), 100000, 0);
	run(bloom_worker, bloom_worker, milliseconds);
	for (u64 i = 0; i <= WORKERS; i++)
		for (u64 count = 0; count < totals[i]; count++)
			CHECK(uxdp_map_lookup(&shared, NULL, &(struct value){i, count}) == 0);
	printf("bloom_filter: %lu values of one worker\n", (unsigned long)totals[0]);
}

/* --- values with a lock, and callbacks for every element --- */

struct locked {
	u64 count;
	u32 lock;
	u32 zero;
	u64 same;
};

static void *lock_worker(void *argument)
{
	u64 me = (u64)argument;
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		u32 key = me % 2;
		struct locked *value = uxdp_helper_map_lookup_elem(&map, &key);

		uxdp_helper_spin_lock(&value->lock);
		value->count++;
		value->same = value->count;
		uxdp_helper_spin_unlock(&value->lock);
		totals[me]++;
	}
	return NULL;
}

/* Reads whole values, and writes such: what was counted goes on from there. */
static void *lock_control(void *argument)
{
	struct locked value;
	u32 key = 1;

	while (running()) {
		CHECK(uxdp_map_lookup(&shared, &key, &value) == 0);
		CHECK(value.count == value.same && !value.lock);
		value = (struct locked){.count = 7, .lock = 99, .same = 7};
		CHECK(uxdp_map_update(&shared, &key, &value, EXIST | LOCK) == 0);
	}
	return argument;
}

static void stress_lock(u64 milliseconds)
{
	struct locked value;
	u32 key = 0;

	create(ARRAY, 4, sizeof(struct locked), 2, 0);
	shared.extra = offsetof(struct locked, lock) + 1;
	run(lock_worker, lock_control, milliseconds);
	CHECK(uxdp_map_lookup(&shared, &key, &value) == 0);
	CHECK(value.count == totals[0] + totals[2] && value.same == value.count);
	printf("spin lock: %lu times by one worker\n", (unsigned long)totals[0]);
}

struct seen {
	u64 keys[8];
};

static s64 note_element(const struct uxdp_map *map, const void *key, void *value, void *context)
{
	struct seen *seen = context;
	u64 number = number_of(value);

	CHECK(map->kind == HASH && key);
	if (number < 8)
		seen->keys[number]++;
	return 0;
}

static void *each_worker(void *argument)
{
	u64 me = (u64)argument, key[2];
	struct uxdp_map map = for_cpu(me);

	for (u64 round = 0; running(); round++) {
		struct seen seen = {0};
		struct value value = {8 + round % 40, round};

		make_key(key, value.number);
		if (uxdp_helper_map_update_elem(&map, key, &value, ANY) == 0)
			uxdp_helper_map_delete_elem(&map, key);
		CHECK(uxdp_helper_for_each_map_elem(&map, note_element, &seen, 0) >= 8);
		for (u32 i = 0; i < 8; i++)
			CHECK(seen.keys[i] == 1); /* they are there all the time */
		totals[me]++;
	}
	return NULL;
}

static void stress_each(u64 milliseconds)
{
	u64 key[2];

	create(HASH, 16, sizeof(struct value), 256, 0);
	for (u64 i = 0; i < 8; i++) {
		make_key(key, i);
		CHECK(uxdp_map_update(&shared, key, &(struct value){i, 0}, NOEXIST) == 0);
	}
	run(each_worker, idle, milliseconds);
	printf("for each: %lu times by one worker\n", (unsigned long)totals[0]);
}

/* --- records from the control plane --- */

static u64 taken[WORKERS], sums[WORKERS];

static s64 take_sample(void *dynptr, void *context)
{
	struct value value;
	u64 *worker = context;

	CHECK(uxdp_helper_dynptr_read(&value, sizeof(value), dynptr, 0, 0) == 0);
	CHECK(value.number == ~value.count);
	taken[*worker]++;
	sums[*worker] += value.count;
	return value.count % 5 == 0;
}

static void *drain_worker(void *argument)
{
	u64 me = (u64)argument;
	struct uxdp_map map = for_cpu(me);

	while (running()) {
		s64 drained = uxdp_helper_user_ringbuf_drain(&map, take_sample, &me, 0);

		CHECK(drained >= 0 || drained == -EBUSY);
		totals[me] += drained > 0 ? drained : 0;
	}
	return NULL;
}

static void *drain_control(void *argument)
{
	while (running()) {
		struct value value = {~totals[WORKERS], totals[WORKERS]};

		if (uxdp_ringbuf_produce(&shared, &value, sizeof(value)) == 0)
			totals[WORKERS]++;
	}
	return argument;
}

static void stress_user_ringbuf(u64 milliseconds)
{
	u64 all = 0, sum = 0, me = 0, made;

	create(USER_RINGBUF, 0, 0, 4096, 0);
	memset(taken, 0, sizeof(taken));
	memset(sums, 0, sizeof(sums));
	run(drain_worker, drain_control, milliseconds);
	made = totals[WORKERS];
	while (uxdp_helper_user_ringbuf_drain(&shared, take_sample, &me, 0))
		;
	for (u32 i = 0; i < WORKERS; i++) {
		all += taken[i];
		sum += sums[i];
	}
	CHECK(made && all == made && sum == made * (made - 1) / 2);
	printf("user_ringbuf: %lu records\n", (unsigned long)made);
}

/* --- maps of maps --- */

#define INNER_BYTES (1u << 20)
#define INNER_AT (8u << 20)

extern u8 uxdp_pool[];

/* Workers add to whatever inner map there is, and find what they added as long as they hold it. */
static void *nested_worker(void *argument)
{
	u64 me = (u64)argument, rounds = 0, key[2];
	struct uxdp_map map = for_cpu(me), space;
	u32 slot = 0;

	make_key(key, me);
	while (running()) {
		struct value value = {me, rounds}, *found;
		const struct uxdp_map *inner;

		test_burst_begins();
		inner = uxdp_helper_map_lookup_elem(&map, &slot);
		if (inner) {
			inner = uxdp_map_here(inner, &space);
			CHECK(inner->kind == HASH && inner->key_size == 16);
			CHECK(uxdp_helper_map_update_elem(inner, key, &value, ANY) == 0);
			found = uxdp_helper_map_lookup_elem(inner, key);
			CHECK(found && number_of(found) == me && found->count == rounds);
			totals[me]++;
		}
		test_burst_ends();
		rounds++;
	}
	return NULL;
}

/* As the runtime: a map that was taken out is used again when no burst that may have seen it goes
 * on. */
static void *nested_control(void *argument)
{
	u32 slot = 0, number = 0;

	while (running()) {
		u64 bursts[WORKERS], key[2];
		struct pool_map *pooled = test_pool_map(number, WORKERS);
		struct uxdp_map inner = {HASH, 16, sizeof(struct value), 64, .num_cpus = WORKERS};
		u32 entry = 1u << 31 | number;

		inner.store = uxdp_pool + INNER_AT + number * INNER_BYTES;
		CHECK(uxdp_store_bytes(&inner) <= INNER_BYTES);
		memset(inner.store, 0, uxdp_store_bytes(&inner));
		CHECK(uxdp_store_init(&inner) == 0);
		pooled->map = inner;
		pooled->map.inner = 1;
		pooled->map.store = (void *)((u8 *)inner.store - (u64)uxdp_pool);
		make_key(key, WORKERS);
		CHECK(uxdp_map_lookup(&inner, key, &(struct value){0}) == -ENOENT);
		CHECK(uxdp_map_update(&shared, &slot, &entry, ANY) == 0);
		__atomic_exchange_n(&totals[WORKERS], totals[WORKERS] + 1, __ATOMIC_SEQ_CST);
		for (u32 i = 0; i < WORKERS; i++)
			bursts[i] = __atomic_load_n(test_burst_of(i), __ATOMIC_SEQ_CST);
		for (u32 i = 0; i < WORKERS; i++)
			while (bursts[i] & 1 &&
			       __atomic_load_n(test_burst_of(i), __ATOMIC_ACQUIRE) == bursts[i])
				sched_yield();
		number ^= 1;
		if (test_pool_map(number, WORKERS)->map.kind) /* nobody looks at it any more */
			memset(uxdp_pool + INNER_AT + number * INNER_BYTES, 0xff, 65536);
	}
	return argument;
}

static void stress_nested(u64 milliseconds)
{
	create(ARRAY_OF_MAPS, 4, 4, 4, 0);
	run(nested_worker, nested_control, milliseconds);
	CHECK(totals[0] && totals[1] && totals[2] && totals[WORKERS] > 1);
	printf("array_of_maps: %lu maps, %lu updates of one worker\n",
	       (unsigned long)totals[WORKERS], (unsigned long)totals[0]);
}

int main(int argc, char **argv)
{
	u64 milliseconds = argc > 1 ? strtoul(argv[1], NULL, 10) : 500;

	stress_hash(HASH, milliseconds);
	stress_hash(PERCPU_HASH, milliseconds);
	stress_lru(LRU_HASH, 0, milliseconds);
	stress_lru(LRU_HASH, 2, milliseconds); /* BPF_F_NO_COMMON_LRU */
	stress_lru(LRU_PERCPU_HASH, 0, milliseconds);
	stress_lpm(milliseconds);
	stress_ringbuf(milliseconds);
	stress_queue(QUEUE, milliseconds);
	stress_queue(STACK, milliseconds);
	stress_bloom(milliseconds);
	stress_lock(milliseconds);
	stress_user_ringbuf(milliseconds);
	stress_each(milliseconds);
	stress_nested(milliseconds);
	stress_perf(milliseconds);
	return 0;
}
