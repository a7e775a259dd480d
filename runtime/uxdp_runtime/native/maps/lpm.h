/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * LPM_TRIE: longest prefix match over keys of 8 to 2048 bits.
 *
 *	header | root table | lengths | short prefixes | links between free nodes | nodes | elements
 *
 * The first 16 bits of a key (8 in small maps) select an entry of the root table, which has the
 *longest prefix of at most so many bits, and the tree of all longer ones. A node of the tree
 *decides four bits: it has 16 children, and the prefixes that end within these bits, in the order
 *of a heap: 1 is none of the four bits, 2 and 3 the first bit, 4 to 7 two, 8 to 15 three. A node's
 *depth is a multiple of 4, and bits between a node and its parent are not stored, as all prefixes
 *below agree on them; a child with a single prefix is that prefix. So there are fewer nodes than
 *prefixes, and a lookup among a million IPv4 prefixes reads the root, one or two nodes of two cache
 *lines, and the element.
 *
 * A lookup goes down by the key's bits alone and compares with a prefix at the end: all prefixes on
 *the way are prefixes of the last one found, so if the key differs from that at bit n, the answer
 *is the longest on the way that has at most n bits.
 *
 * One writer at a time. Readers do not wait: every change is one store of a pointer-like word, and
 *what is cut off keeps its contents until it is used again. That happens late, as nodes and
 *elements go through queues, and a counter ("recycled") tells readers to start again when it does.
 *
 * Reference: kernel/bpf/lpm_trie.c
 */
#ifndef UXDP_MAPS_LPM_H
#define UXDP_MAPS_LPM_H

#include "../memory.h"

#define LPM_STRIDE 4u
/* More elements and nodes than needed, so that what a reader holds is not reused at once. */
#define LPM_RESERVE 64u

/* A child: 0, or number + 1 of a node, or of an element with this bit. */
#define LPM_LEAF (1u << 31)

struct lpm_queue {
	u32 first; /* number + 1 of what was set free first; 0: none */
	u32 last;
	u32 fresh; /* from this number on, never used */
	u32 zero;
};

struct lpm_header {
	u64 recycled; /* how often something was used again */
	u32 lock;
	u32 entries;
	u32 first; /* elements in the order in which their keys were added; number + 1 */
	u32 last;
	struct lpm_queue nodes;
	struct lpm_queue elements;
};

struct lpm_root {
	u32 child;
	u32 best; /* number + 1 of the element of the longest prefix within the root's bits */
};

struct lpm_node {
	u32 child[16];
	u32 prefixes;	/* a bit for each of the following that is there, and the depth in the upper
			   half */
	u32 prefix[15]; /* number + 1 of the element, by place in the heap minus 1 */
} __attribute__((aligned(128)));

struct lpm_element {
	u32 next; /* in the order of insertion, or in the queue; number + 1 */
	u32 previous;
	u32 zero;
	u32 length; /* of the prefix, in bits; then the key's data, rounded up to 8 bytes, and the
		       value */
	u64 data[];
};

_Static_assert(sizeof(struct lpm_node) == 128, "a node is two cache lines");
_Static_assert(sizeof(struct lpm_element) == 16, "data is aligned");

UXDP_INLINE u32 lpm_data_bytes(const struct uxdp_map *map)
{
	return map->key_size - 4;
}

UXDP_INLINE u32 lpm_max_length(const struct uxdp_map *map)
{
	return lpm_data_bytes(map) * 8;
}

UXDP_INLINE u32 lpm_root_bits(const struct uxdp_map *map)
{
	return map->max_entries <= 256 || lpm_data_bytes(map) == 1 ? 8 : 16;
}

UXDP_INLINE u64 lpm_stride(const struct uxdp_map *map)
{
	u64 bytes = sizeof(struct lpm_element) + round_up_to(lpm_data_bytes(map), 8) +
		    round_up_to(map->value_size, 8);

	return bytes > 64 ? bytes : 1ull << log2_up(bytes);
}

UXDP_INLINE u64 lpm_capacity(const struct uxdp_map *map)
{
	return (u64)map->max_entries + LPM_RESERVE;
}

UXDP_INLINE u64 lpm_root_offset(void)
{
	return PAGE_SIZE;
}

UXDP_INLINE u64 lpm_lengths_offset(const struct uxdp_map *map)
{
	return lpm_root_offset() + (sizeof(struct lpm_root) << lpm_root_bits(map));
}

UXDP_INLINE u64 lpm_short_offset(const struct uxdp_map *map)
{
	return lpm_lengths_offset(map) + (1ull << lpm_root_bits(map));
}

UXDP_INLINE u64 lpm_links_offset(const struct uxdp_map *map)
{
	return lpm_short_offset(map) + (sizeof(u32) << (lpm_root_bits(map) + 1));
}

UXDP_INLINE u64 lpm_nodes_offset(const struct uxdp_map *map)
{
	return round_up_to(lpm_links_offset(map) + lpm_capacity(map) * sizeof(u32), PAGE_SIZE);
}

UXDP_INLINE u64 lpm_elements_offset(const struct uxdp_map *map)
{
	return round_up_to(lpm_nodes_offset(map) + lpm_capacity(map) * sizeof(struct lpm_node),
			   PAGE_SIZE);
}

UXDP_INLINE u64 lpm_bytes(const struct uxdp_map *map)
{
	return round_up_to(lpm_elements_offset(map) + lpm_capacity(map) * lpm_stride(map),
			   PAGE_SIZE);
}

UXDP_INLINE struct lpm_header *lpm_header(const struct uxdp_map *map)
{
	return map->store;
}

UXDP_INLINE struct lpm_root *lpm_root(const struct uxdp_map *map, u32 index)
{
	return (struct lpm_root *)((u8 *)map->store + lpm_root_offset()) + index;
}

UXDP_INLINE struct lpm_node *lpm_node(const struct uxdp_map *map, u32 number)
{
	return (struct lpm_node *)((u8 *)map->store + lpm_nodes_offset(map)) + number;
}

UXDP_INLINE struct lpm_element *lpm_element(const struct uxdp_map *map, u32 number)
{
	return (struct lpm_element *)((u8 *)map->store + lpm_elements_offset(map) +
				      number * lpm_stride(map));
}

UXDP_INLINE void *lpm_value(const struct uxdp_map *map, u32 number)
{
	return (u8 *)lpm_element(map, number)->data + round_up_to(lpm_data_bytes(map), 8);
}

/* trie_alloc() */
UXDP_INLINE bool lpm_is_valid(const struct uxdp_map *map)
{
	u32 known = BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | BPF_F_ACCESS_MASK;

	/* The largest value: KMALLOC_MAX_SIZE - LPM_DATA_SIZE_MAX - sizeof(struct lpm_trie_node) */
	return map->max_entries && map->flags & BPF_F_NO_PREALLOC && !(map->flags & ~known) &&
	       map->key_size >= 4 + 1 && map->key_size <= 4 + 256 && map->value_size &&
	       map->value_size <= KMALLOC_MAX_SIZE - 256 - 40 &&
	       map->max_entries < LPM_LEAF - LPM_RESERVE;
}

UXDP_INLINE u32 lpm_load(const u32 *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* The key's data in the program's memory, with short data in a register. */
struct lpm_key {
	const u8 *data;
	u64 word; /* the first 8 bytes, most significant bit first */
	u32 length;
};

UXDP_INLINE struct lpm_key lpm_key(const struct uxdp_map *map, const void *key)
{
	const u8 *data = (const u8 *)key + 4;

	return (struct lpm_key){
	    .data = data,
	    .word = big_endian_u64(key_word(data, 0, lpm_data_bytes(map))),
	    .length = load_u32(key),
	};
}

UXDP_INLINE u32 lpm_root_index(const struct uxdp_map *map, const struct lpm_key *key)
{
	return key->word >> (64 - lpm_root_bits(map));
}

/* The four bits behind depth; 0 behind the last. */
UXDP_INLINE u32 lpm_nibble(const struct uxdp_map *map, const struct lpm_key *key, u32 depth)
{
	if (lpm_data_bytes(map) <= 8)
		return (key->word << depth) >>
		       60; /* depth < 64: a node is above some prefix that is longer */
	return (key->data[depth / 8] >> (LPM_STRIDE - depth % 8)) & 15;
}

/* The places in a node's heap of the prefixes of a nibble that have at most this many of its bits.
 */
UXDP_INLINE u32 lpm_places(u32 nibble, u32 bits)
{
	u32 places =
	    1u << (8 + nibble / 2) | 1u << (4 + nibble / 4) | 1u << (2 + nibble / 8) | 1u << 1;

	return bits >= 3 ? places : places & ((1u << (2u << bits)) - 1);
}

/* How many bits the key and an element's data have in common, at most limit. */
UXDP_INLINE u32 lpm_common(const struct uxdp_map *map, const struct lpm_key *key,
			   const struct lpm_element *element, u32 limit)
{
	u32 bytes = lpm_data_bytes(map), common = 0;

	for (u32 i = 0; i < key_words(bytes); i++) {
		u64 word = i ? key_word(key->data, i, bytes) : big_endian_u64(key->word);
		u64 difference = __atomic_load_n(&element->data[i], __ATOMIC_RELAXED) ^ word;

		if (difference) {
			common += __builtin_clzll(big_endian_u64(difference));
			break;
		}
		common += 64;
		if (common >= limit)
			break;
	}
	return common < limit ? common : limit;
}

struct lpm_match {
	u32 best;   /* number + 1 of the longest prefix that was passed with at most limit bits */
	u32 length; /* its length if it is not the root's */
	u32 leaf;   /* number + 1 of the element at the end; 0: the end was a node */
};

UXDP_INLINE struct lpm_match lpm_descend(const struct uxdp_map *map, const struct lpm_key *key,
					 u32 limit)
{
	const struct lpm_root *root = lpm_root(map, lpm_root_index(map, key));
	struct lpm_match match = {.best = lpm_load(&root->best)};
	u32 child = lpm_load(&root->child);

	while (child && !(child & LPM_LEAF)) {
		const struct lpm_node *node = lpm_node(map, child - 1);
		u32 prefixes = lpm_load(&node->prefixes);
		u32 depth = prefixes >> 16, nibble, places;

		if (depth > limit)
			return match;
		nibble = lpm_nibble(map, key, depth);
		child = lpm_load(&node->child[nibble]);
		places = prefixes & lpm_places(nibble, limit - depth);
		while (places) {
			u32 place = 31 - __builtin_clz(places);
			u32 element = lpm_load(&node->prefix[place - 1]);

			if (likely(element)) {
				match.best = element;
				match.length = depth + (31 - __builtin_clz(place));
				break;
			}
			places &= ~(1u << place);
		}
	}
	match.leaf = child & ~LPM_LEAF;
	return match;
}

/* A key that is shorter than the root's bits. */
UXDP_COLD u32 lpm_find_short(const struct uxdp_map *map, const struct lpm_key *key)
{
	const u32 *shorts = (const u32 *)((u8 *)map->store + lpm_short_offset(map));

	for (u32 place = 1u << key->length | (u32)(key->word >> 1 >> (63 - key->length)); place;
	     place /= 2) {
		u32 element = lpm_load(&shorts[place]);

		if (element)
			return element;
	}
	return 0;
}

UXDP_INLINE u32 lpm_find_once(const struct uxdp_map *map, const struct lpm_key *key)
{
	struct lpm_match match;
	u32 length, common;

	if (unlikely(key->length < lpm_root_bits(map)))
		return lpm_find_short(map, key);
	match = lpm_descend(map, key, key->length);
	if (match.leaf) {
		const struct lpm_element *element = lpm_element(map, match.leaf - 1);

		length = __atomic_load_n(&element->length, __ATOMIC_RELAXED);
		common = lpm_common(map, key, element, key->length);
		if (likely(common >= length))
			return match.leaf;
	} else if (match.length) {
		common = lpm_common(map, key, lpm_element(map, match.best - 1), key->length);
	} else {
		return match.best;
	}
	if (likely(match.length <= common))
		return match.best;
	return lpm_descend(map, key, common).best;
}

/* The element's number + 1, or 0. */
UXDP_INLINE u32 lpm_find(const struct uxdp_map *map, const void *key)
{
	struct lpm_key wanted = lpm_key(map, key);
	const u64 *recycled = &lpm_header(map)->recycled;

	if (unlikely(wanted.length > lpm_max_length(map)))
		return 0;
	for (;;) {
		u64 before = __atomic_load_n(recycled, __ATOMIC_ACQUIRE);
		u32 element = lpm_find_once(map, &wanted);

		read_fence();
		if (likely(__atomic_load_n(recycled, __ATOMIC_ACQUIRE) == before))
			return element;
	}
}

UXDP_INLINE void *lpm_lookup(const struct uxdp_map *map, const void *key)
{
	u32 element = lpm_find(map, key);

	return element ? lpm_value(map, element - 1) : NULL;
}

#endif
