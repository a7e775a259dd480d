/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * How many nodes a lookup in a trie reads, by the number of prefixes in it: for a table of the
 * lengths that BGP has, and addresses within its prefixes.
 *
 * One line for each table: prefixes, the most nodes that a lookup read, the mean in hundredths, and
 * how many of the addresses were found. Run by tests/unit/test_native_lpm.py.
 */
#include "../../runtime/uxdp_runtime/native/uxdp.c"

extern int printf(const char *format, ...);
extern void *mmap(void *address, u64 len, int protection, int flags, int fd, s64 offset);

#define ADDRESSES 100000u

struct uxdp_worker uxdp_worker = {.num_cpus = 1};
struct uxdp_kernel uxdp_kernel;
u8 uxdp_pool[1];
const struct uxdp_map *const uxdp_declared[1];

u32 uxdp_program(struct uxdp_frame *frame)
{
	(void)frame;
	return XDP_PASS;
}

struct key {
	u32 length;
	u8 address[16];
};

/* Half are /24 (IPv6: /48), the others /16 to /24 (/29 to /48). */
static struct key prefix(u64 *state, u32 i, bool six)
{
	u64 one = next_seed(state), other = next_seed(state);
	struct key key;

	key.length = six ? (i % 2 ? 48 : 29 + other % 20) : (i % 2 ? 24 : 16 + other % 9);
	__builtin_memcpy(key.address, &one, 8);
	__builtin_memcpy(key.address + 8, &other, 8);
	key.address[0] = six ? 0x20 : 1 + one % 223;
	if (six)
		key.address[1] &= 0x1f;
	return key;
}

/* The nodes on the way of lpm_lookup(). */
static u32 nodes_read(const struct uxdp_map *map, const struct key *key)
{
	struct lpm_key wanted = lpm_key(map, key);
	u32 child = lpm_root(map, lpm_root_index(map, &wanted))->child, nodes = 0;

	while (child && !(child & LPM_LEAF)) {
		const struct lpm_node *node = lpm_node(map, child - 1);

		child = node->child[lpm_nibble(map, &wanted, node->prefixes >> 16)];
		nodes++;
	}
	return nodes;
}

static void measure(u32 entries, bool six)
{
	struct uxdp_map map = {.kind = BPF_MAP_TYPE_LPM_TRIE,
			       .key_size = six ? 20 : 8,
			       .value_size = 4,
			       .max_entries = 1 << 20,
			       .flags = BPF_F_NO_PREALLOC,
			       .num_cpus = 1};
	u64 state = 1, total = 0;
	u32 most = 0, found = 0;

	/* PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE */
	map.store = map.cpu_store = mmap(NULL, uxdp_store_bytes(&map), 3, 0x4022, -1, 0);
	uxdp_store_init(&map);
	for (u32 i = 0; i < entries; i++) {
		struct key key = prefix(&state, i, six);

		uxdp_map_update(&map, &key, &i, BPF_ANY);
	}
	for (u32 i = 0; i < ADDRESSES; i++) {
		struct key key;
		u32 nodes;

		if (i % entries == 0) /* again from the first */
			state = 1;
		key = prefix(&state, i, six);
		key.length = six ? 128 : 32;
		nodes = nodes_read(&map, &key);
		most = nodes > most ? nodes : most;
		total += nodes;
		found += uxdp_helper_map_lookup_elem(&map, &key) != NULL;
	}
	printf("%u %u %u %u\n", lpm_header(&map)->entries, most, (u32)(total * 100 / ADDRESSES),
	       found);
}

int main(void)
{
	measure(1000, false);
	measure(1000000, false);
	measure(1000, true);
	measure(1000000, true);
	return 0;
}
