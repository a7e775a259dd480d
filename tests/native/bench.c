/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How long a lookup takes: ns per operation, by kind of map and number of entries. Keys are looked
 *up in random order, with a dependency from one lookup to the next ("chained") and without
 *("free"), where the CPU overlaps the cache misses of several.
 *
 *	python -m ziglang cc -O3 -march=native -fno-sanitize=undefined bench.c -o bench && ./bench
 */
#include "../../runtime/uxdp_runtime/native/uxdp.c"

extern int printf(const char *format, ...);
extern void *mmap(void *address, u64 len, int protection, int flags, int fd, s64 offset);
extern void *malloc(u64 size);

struct uxdp_worker uxdp_worker = {.num_cpus = 1};
struct uxdp_kernel uxdp_kernel;

u32 uxdp_program(struct uxdp_frame *frame)
{
	(void)frame;
	return XDP_PASS;
}

static u64 random_state = 1;

static u64 random_u64(void)
{
	return next_seed(&random_state);
}

struct key16 {
	u64 word[2];
};

struct key8 {
	u32 length;
	u8 address[4];
};

struct key20 {
	u32 length;
	u8 address[16];
};

static u8 *memory; /* of the map under test */

/* As in a compiled program: the definition is a constant, the memory is where the loader put it. */
#define MAP(name, ...)                                                                             \
	static inline __attribute__((always_inline)) struct uxdp_map name(void)                    \
	{                                                                                          \
		return (struct uxdp_map){__VA_ARGS__, .num_cpus = 1, .store = memory,              \
					 .cpu_store = memory};                                     \
	}

static void prepare(struct uxdp_map map)
{
	/* PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE */
	memory = mmap(NULL, uxdp_store_bytes(&map), 3, 0x4022, -1, 0);
	map.store = memory;
	uxdp_store_init(&map);
}

#define ROUNDS 5
#define LOOKUPS 2000000u

#define BENCH(label, make, key_type, entries, keys)                                                \
	do {                                                                                       \
		u64 best_free = ~0ull, best_chained = ~0ull;                                       \
		struct uxdp_map map = make();                                                      \
		map.cpu_store = memory + uxdp_store_cpu_offset(&map, 0);                           \
		u8 *cpu_store = map.cpu_store;                                                     \
		u32 *order = malloc(LOOKUPS * 4);                                                  \
		u64 found = 0, sum = 0;                                                            \
		for (u32 i = 0; i < LOOKUPS; i++)                                                  \
			order[i] = random_u64() % (entries);                                       \
		for (u32 round = 0; round < ROUNDS; round++) {                                     \
			struct uxdp_map m = make();                                                \
			u64 start;                                                                 \
			m.cpu_store = cpu_store;                                                   \
			start = clock_ns(CLOCK_MONOTONIC);                                         \
			for (u32 i = 0; i < LOOKUPS; i++) {                                        \
				const u64 *value =                                                 \
				    uxdp_helper_map_lookup_elem(&m, &(keys)[order[i]]);            \
				if (value)                                                         \
					sum += *value, found++;                                    \
			}                                                                          \
			start = clock_ns(CLOCK_MONOTONIC) - start;                                 \
			best_free = start < best_free ? start : best_free;                         \
			start = clock_ns(CLOCK_MONOTONIC);                                         \
			for (u32 i = 0, next = 0; i < LOOKUPS; i++) {                              \
				const u64 *value =                                                 \
				    uxdp_helper_map_lookup_elem(&m, &(keys)[order[i] ^ next]);     \
				next = value ? *value & 1 << 31 : 0;                               \
			}                                                                          \
			start = clock_ns(CLOCK_MONOTONIC) - start;                                 \
			best_chained = start < best_chained ? start : best_chained;                \
		}                                                                                  \
		printf("%-26s %8u entries  free %6.1f  chained %6.1f ns  (%u%% found)\n", label,   \
		       entries, (double)best_free / LOOKUPS, (double)best_chained / LOOKUPS,       \
		       (u32)(found * 100 / ROUNDS / LOOKUPS));                                     \
		if (sum == 1)                                                                      \
			printf("\n");                                                              \
	} while (0)

MAP(hash_10k, BPF_MAP_TYPE_HASH, 16, 16, 10000)
MAP(hash_1m, BPF_MAP_TYPE_HASH, 16, 16, 1 << 20)
MAP(hash40_1m, BPF_MAP_TYPE_HASH, 40, 32, 1 << 20)
MAP(lru_10k, BPF_MAP_TYPE_LRU_HASH, 16, 16, 10000)
MAP(lru_1m, BPF_MAP_TYPE_LRU_HASH, 16, 16, 1 << 20)
MAP(percpu_1m, BPF_MAP_TYPE_PERCPU_HASH, 40, 32, 1 << 20)
MAP(lpm4_10k, BPF_MAP_TYPE_LPM_TRIE, 8, 8, 10000, BPF_F_NO_PREALLOC)
MAP(lpm4_1m, BPF_MAP_TYPE_LPM_TRIE, 8, 8, 1 << 20, BPF_F_NO_PREALLOC)
MAP(lpm6_1m, BPF_MAP_TYPE_LPM_TRIE, 20, 8, 1 << 20, BPF_F_NO_PREALLOC)

static void fill(struct uxdp_map map, const void *keys, u32 entries)
{
	u64 value[8] = {2}, start;

	map.cpu_store = memory + uxdp_store_cpu_offset(&map, 0);
	start = clock_ns(CLOCK_MONOTONIC);
	for (u32 i = 0; i < entries; i++)
		uxdp_map_update(&map, (const u8 *)keys + (u64)i * map.key_size, value, BPF_ANY);
	printf("%-26s %8u updates  %6.1f ns\n", "", entries,
	       (double)(clock_ns(CLOCK_MONOTONIC) - start) / entries);
}

int main(void)
{
	u32 small = 9000, large = 1000000;
	struct key16 *keys = malloc(sizeof(*keys) * large);
	u64(*keys40)[5] = malloc(sizeof(*keys40) * large);
	struct key8 *prefixes = malloc(sizeof(*prefixes) * large),
		    *addresses = malloc(sizeof(*addresses) * large);
	struct key20 *prefixes6 = malloc(sizeof(*prefixes6) * large),
		     *addresses6 = malloc(sizeof(*addresses6) * large);

	for (u32 i = 0; i < large; i++) {
		u64 word = random_u64();

		keys[i] = (struct key16){{word, random_u64()}};
		for (u32 j = 0; j < 5; j++)
			keys40[i][j] = random_u64();
		/* The lengths of a BGP table: half are /24, the others mostly /16 to /23. */
		prefixes[i].length = i % 2 ? 24 : 16 + random_u64() % 9;
		prefixes[i].address[0] = 1 + word % 223;
		prefixes[i].address[1] = word >> 8;
		prefixes[i].address[2] = word >> 16;
		prefixes[i].address[3] = word >> 24;
		addresses[i] = prefixes[i];
		addresses[i].length = 32;
		prefixes6[i].length = i % 2 ? 48 : 29 + random_u64() % 20;
		__builtin_memcpy(prefixes6[i].address, keys40[i], 16);
		prefixes6[i].address[0] = 0x20;
		prefixes6[i].address[1] &= 0x1f;
		addresses6[i] = prefixes6[i];
		addresses6[i].length = 128;
	}
#define RUN(label, make, key_type, entries, keys, wanted)                                          \
	prepare(make());                                                                           \
	fill(make(), keys, entries);                                                               \
	BENCH(label, make, key_type, entries, wanted)

	RUN("hash 16 -> 16", hash_10k, struct key16, small, keys, keys);
	RUN("hash 16 -> 16", hash_1m, struct key16, large, keys, keys);
	RUN("hash 40 -> 32", hash40_1m, u64[5], large, keys40, keys40);
	RUN("lru_hash 16 -> 16", lru_10k, struct key16, small, keys, keys);
	RUN("lru_hash 16 -> 16", lru_1m, struct key16, large, keys, keys);
	RUN("percpu_hash 40 -> 32", percpu_1m, u64[5], large, keys40, keys40);
	RUN("lpm_trie IPv4", lpm4_10k, struct key8, small, prefixes, addresses);
	RUN("lpm_trie IPv4", lpm4_1m, struct key8, large, prefixes, addresses);
	RUN("lpm_trie IPv6", lpm6_1m, struct key20, large, prefixes6, addresses6);
	return 0;
}
