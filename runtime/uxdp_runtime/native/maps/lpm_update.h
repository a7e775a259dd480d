/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Changing an LPM_TRIE; the layout and the rules for readers are in lpm.h.
 *
 * As in the kernel, an update of a prefix that is there gives it another element. Enumeration
 * follows the order in which prefixes were added, not the kernel's (most specific first); an update
 * keeps the place.
 *
 * Prefixes within the root's bits are kept in a heap of their own ("shorts"), and each entry of the
 * root table that they cover has the longest of them, with its length in the table "lengths". So
 * the shortest prefixes cost the most to add: some 50 us for a default route.
 */
#ifndef UXDP_MAPS_LPM_UPDATE_H
#define UXDP_MAPS_LPM_UPDATE_H

#include "lpm.h"

UXDP_SMALL static void lpm_store(u32 *word, u32 value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* --- queues of nodes and elements --- */

/* Nodes are linked outside of them, because readers may still be in there. */
UXDP_SMALL static u32 *lpm_link(const struct uxdp_map *map, const struct lpm_queue *queue,
				u32 number)
{
	if (queue == &lpm_header(map)->nodes)
		return (u32 *)((u8 *)map->store + lpm_links_offset(map)) + number;
	return &lpm_element(map, number)->next;
}

/* A number + 1; 0: none is left. */
UXDP_SMALL static u32 lpm_take(const struct uxdp_map *map, struct lpm_queue *queue)
{
	u32 taken = queue->first;

	if (queue->fresh < lpm_capacity(map))
		return ++queue->fresh;
	if (!taken)
		return 0;
	queue->first = lpm_load(lpm_link(map, queue, taken - 1));
	if (!queue->first)
		queue->last = 0;
	__atomic_store_n(&lpm_header(map)->recycled, lpm_header(map)->recycled + 1,
			 __ATOMIC_RELEASE);
	write_fence();
	return taken;
}

UXDP_SMALL static void lpm_give(const struct uxdp_map *map, struct lpm_queue *queue, u32 given)
{
	lpm_store(lpm_link(map, queue, given - 1), 0);
	if (queue->last)
		lpm_store(lpm_link(map, queue, queue->last - 1), given);
	else
		queue->first = given;
	queue->last = given;
}

/* --- the order of insertion --- */

UXDP_SMALL static void lpm_order_add(const struct uxdp_map *map, u32 element)
{
	struct lpm_header *header = lpm_header(map);

	lpm_store(&lpm_element(map, element - 1)->next, 0);
	lpm_element(map, element - 1)->previous = header->last;
	if (header->last)
		lpm_store(&lpm_element(map, header->last - 1)->next, element);
	else
		header->first = element;
	header->last = element;
}

/* Let another element, or none (0), stand where this one stands. */
UXDP_SMALL static void lpm_order_replace(const struct uxdp_map *map, u32 old, u32 element)
{
	struct lpm_header *header = lpm_header(map);
	u32 next = lpm_load(&lpm_element(map, old - 1)->next);
	u32 previous = lpm_element(map, old - 1)->previous;

	if (element) {
		lpm_store(&lpm_element(map, element - 1)->next, next);
		lpm_element(map, element - 1)->previous = previous;
	}
	if (previous)
		lpm_store(&lpm_element(map, previous - 1)->next, element ? element : next);
	else
		header->first = element ? element : next;
	if (next)
		lpm_element(map, next - 1)->previous = element ? element : previous;
	else
		header->last = element ? element : previous;
}

/* --- nodes --- */

UXDP_SMALL static u32 lpm_place(const struct uxdp_map *map, const struct lpm_key *key, u32 depth)
{
	u32 bits = key->length - depth;

	return 1u << bits | (bits ? lpm_nibble(map, key, depth) >> (LPM_STRIDE - bits) : 0);
}

UXDP_SMALL static void lpm_set_prefix(struct lpm_node *node, u32 place, u32 element)
{
	u32 prefixes = node->prefixes & ~(1u << place);

	if (!element)
		lpm_store(&node->prefixes, prefixes);
	lpm_store(&node->prefix[place - 1], element);
	if (element)
		lpm_store(&node->prefixes, prefixes | 1u << place);
}

/* Put a prefix into a node that it belongs to, or under it, where nothing else is. */
UXDP_SMALL static void lpm_put(const struct uxdp_map *map, struct lpm_node *node,
			       const struct lpm_key *key, u32 element)
{
	u32 depth = node->prefixes >> 16;

	if (key->length - depth < LPM_STRIDE)
		lpm_set_prefix(node, lpm_place(map, key, depth), element);
	else
		lpm_store(&node->child[lpm_nibble(map, key, depth)], element | LPM_LEAF);
}

UXDP_SMALL static struct lpm_key lpm_key_of(const struct uxdp_map *map, u32 element)
{
	const struct lpm_element *from = lpm_element(map, element - 1);

	return (struct lpm_key){
	    .data = (const u8 *)from->data,
	    .word = big_endian_u64(from->data[0]),
	    .length = from->length,
	};
}

/* Some element under a child. */
UXDP_SMALL static u32 lpm_some_element(const struct uxdp_map *map, u32 child)
{
	while (!(child & LPM_LEAF)) {
		const struct lpm_node *node = lpm_node(map, child - 1);

		if (node->prefixes & 0xffff)
			return node->prefix[__builtin_ctz(node->prefixes) - 1];
		for (u32 nibble = 0; nibble < 16; nibble++)
			if (node->child[nibble])
				child = node->child[nibble];
	}
	return child & ~LPM_LEAF;
}

UXDP_SMALL static u32 lpm_new_node(const struct uxdp_map *map, u32 depth)
{
	u32 number = lpm_take(map, &lpm_header(map)->nodes);
	struct lpm_node *node = lpm_node(map, number - 1);

	/* There are more nodes than prefixes, and more prefixes than nodes in use. */
	for (u32 i = 0; i < 16; i++)
		lpm_store(&node->child[i], 0);
	lpm_store(&node->prefixes, depth << 16);
	for (u32 i = 0; i < 15; i++)
		lpm_store(&node->prefix[i], 0);
	return number;
}

/* A place in the trie: where a prefix is, or would be. */
struct lpm_place {
	u32 element; /* number + 1 of what is there */
	u32 *child;  /* the word that refers to it if it is a leaf, or to the node or nothing where
			it ends */
	u32 node;    /* number + 1 of the node that has it as prefix or child; 0: the root */
	u32 *parent; /* the word that refers to that node */
	u32 common;  /* bits that the key has in common with what is below child */
};

UXDP_SMALL static struct lpm_place lpm_seek(const struct uxdp_map *map, const struct lpm_key *key)
{
	struct lpm_place at = {.child = &lpm_root(map, lpm_root_index(map, key))->child};

	while (*at.child) {
		u32 some = lpm_some_element(map, *at.child);
		u32 length = lpm_element(map, some - 1)->length;
		u32 limit = key->length < length ? key->length : length;
		struct lpm_node *node;
		u32 depth;

		at.common = lpm_common(map, key, lpm_element(map, some - 1), limit);
		if (*at.child & LPM_LEAF) {
			if (at.common == key->length && at.common == length)
				at.element = some;
			break;
		}
		node = lpm_node(map, *at.child - 1);
		depth = node->prefixes >> 16;
		if (at.common < depth)
			break;
		at.parent = at.child;
		at.node = *at.child;
		if (key->length - depth < LPM_STRIDE) {
			at.element = node->prefix[lpm_place(map, key, depth) - 1];
			at.child = NULL;
			break;
		}
		at.child = &node->child[lpm_nibble(map, key, depth)];
	}
	return at;
}

/* Let the prefix at this place be this element; it had none. */
UXDP_SMALL static void lpm_insert(const struct uxdp_map *map, const struct lpm_place *at,
				  const struct lpm_key *key, u32 element)
{
	if (!at->child) {
		struct lpm_node *node = lpm_node(map, at->node - 1);

		lpm_set_prefix(node, lpm_place(map, key, node->prefixes >> 16), element);
	} else if (!*at->child) {
		lpm_store(at->child, element | LPM_LEAF);
	} else {
		u32 depth = at->common & ~(LPM_STRIDE - 1);
		u32 number = lpm_new_node(map, depth);
		struct lpm_node *node = lpm_node(map, number - 1);
		struct lpm_key other = lpm_key_of(map, lpm_some_element(map, *at->child));

		lpm_put(map, node, key, element);
		if (*at->child & LPM_LEAF)
			lpm_put(map, node, &other, *at->child & ~LPM_LEAF);
		else
			lpm_store(&node->child[lpm_nibble(map, &other, depth)], *at->child);
		lpm_store(at->child, number);
	}
}

/* A node with one thing left in it gives way to that. */
UXDP_SMALL static void lpm_contract(const struct uxdp_map *map, u32 number, u32 *parent)
{
	const struct lpm_node *node = lpm_node(map, number - 1);
	u32 prefixes = node->prefixes & 0xffff;
	u32 things = __builtin_popcount(prefixes);
	u32 last = prefixes ? node->prefix[__builtin_ctz(prefixes) - 1] | LPM_LEAF : 0;

	for (u32 nibble = 0; nibble < 16; nibble++) {
		if (!node->child[nibble])
			continue;
		things++;
		last = node->child[nibble];
	}
	if (things > 1)
		return;
	lpm_store(parent, last);
	lpm_give(map, &lpm_header(map)->nodes, number);
}

UXDP_SMALL static void lpm_remove(const struct uxdp_map *map, const struct lpm_place *at,
				  const struct lpm_key *key)
{
	if (!at->child) {
		struct lpm_node *node = lpm_node(map, at->node - 1);

		lpm_set_prefix(node, lpm_place(map, key, node->prefixes >> 16), 0);
	} else {
		lpm_store(at->child, 0);
	}
	if (at->node)
		lpm_contract(map, at->node, at->parent);
}

UXDP_SMALL static void lpm_replace(const struct uxdp_map *map, const struct lpm_place *at,
				   const struct lpm_key *key, u32 element)
{
	if (at->child)
		lpm_store(at->child, element | LPM_LEAF);
	else
		lpm_insert(map, at, key, element);
}

/* --- prefixes within the root's bits --- */

UXDP_SMALL static u32 *lpm_short(const struct uxdp_map *map, u32 place)
{
	return (u32 *)((u8 *)map->store + lpm_short_offset(map)) + place;
}

UXDP_SMALL static u32 lpm_short_place(const struct lpm_key *key)
{
	return 1u << key->length | (u32)(key->word >> 1 >> (63 - key->length));
}

/* Set a short prefix's element, or 0, and with it what the root has for all that it covers. */
UXDP_SMALL static void lpm_set_short(const struct uxdp_map *map, const struct lpm_key *key,
				     u32 element)
{
	u8 *lengths = (u8 *)map->store + lpm_lengths_offset(map); /* of the best prefixes, + 1 */
	u32 rest = lpm_root_bits(map) - key->length;
	u32 place = lpm_short_place(key);
	u32 first = (place << rest) - (1u << lpm_root_bits(map));
	u32 best = element, length = key->length + 1;

	lpm_store(lpm_short(map, place), element);
	while (!best && place > 1) {
		place /= 2;
		length--;
		best = *lpm_short(map, place);
	}
	for (u32 index = first; index < first + (1u << rest); index++) {
		if (lengths[index] > key->length + 1)
			continue;
		lpm_store(&lpm_root(map, index)->best, best);
		lengths[index] = best ? length : 0;
	}
}

/* --- operations; the lock is held --- */

UXDP_SMALL static u32 lpm_find_exact(const struct uxdp_map *map, const struct lpm_key *key,
				     struct lpm_place *at)
{
	if (key->length <= lpm_root_bits(map))
		return *lpm_short(map, lpm_short_place(key));
	*at = lpm_seek(map, key);
	return at->element;
}

UXDP_SMALL static s64 lpm_update_locked(const struct uxdp_map *map, const struct lpm_key *key,
					const void *value, u64 flags)
{
	struct lpm_header *header = lpm_header(map);
	struct lpm_element *to;
	struct lpm_place at;
	u32 old = lpm_find_exact(map, key, &at), element;

	if (old && flags == BPF_NOEXIST)
		return -EEXIST;
	if (!old && flags == BPF_EXIST)
		return -ENOENT;
	if (!old && header->entries == map->max_entries)
		return -ENOSPC;
	element = lpm_take(map, &header->elements);
	if (!element)
		return -ENOMEM;
	to = lpm_element(map, element - 1);
	__atomic_store_n(&to->length, key->length, __ATOMIC_RELAXED);
	store_key(to->data, key->data, lpm_data_bytes(map));
	copy_value(lpm_value(map, element - 1), value, map->value_size);

	if (key->length <= lpm_root_bits(map))
		lpm_set_short(map, key, element);
	else if (old)
		lpm_replace(map, &at, key, element);
	else
		lpm_insert(map, &at, key, element);

	if (old) {
		lpm_order_replace(map, old, element);
		lpm_give(map, &header->elements, old);
	} else {
		lpm_order_add(map, element);
		header->entries++;
	}
	return 0;
}

UXDP_SMALL static s64 lpm_delete_locked(const struct uxdp_map *map, const struct lpm_key *key)
{
	struct lpm_header *header = lpm_header(map);
	struct lpm_place at;
	u32 old = lpm_find_exact(map, key, &at);

	if (!old)
		return -ENOENT;
	if (key->length <= lpm_root_bits(map))
		lpm_set_short(map, key, 0);
	else
		lpm_remove(map, &at, key);
	lpm_order_replace(map, old, 0);
	lpm_give(map, &header->elements, old);
	header->entries--;
	return 0;
}

UXDP_SMALL UXDP_COLD s64 lpm_update(const struct uxdp_map *map, const void *key, const void *value,
				    u64 flags)
{
	struct lpm_key wanted = lpm_key(map, key);
	s64 result;

	if (flags > BPF_EXIST || wanted.length > lpm_max_length(map))
		return -EINVAL;
	if (!seqlock_lock(&lpm_header(map)->lock))
		return -ETIMEDOUT;
	result = lpm_update_locked(map, &wanted, value, flags);
	seqlock_unlock(&lpm_header(map)->lock);
	return result;
}

UXDP_SMALL UXDP_COLD s64 lpm_delete(const struct uxdp_map *map, const void *key)
{
	struct lpm_key wanted = lpm_key(map, key);
	s64 result;

	if (wanted.length > lpm_max_length(map))
		return -EINVAL;
	if (!seqlock_lock(&lpm_header(map)->lock))
		return -ETIMEDOUT;
	result = lpm_delete_locked(map, &wanted);
	seqlock_unlock(&lpm_header(map)->lock);
	return result;
}

/* A key that is not there, or NULL: the first. */
UXDP_SMALL static s64 lpm_next_key(const struct uxdp_map *map, const void *key, void *next)
{
	struct lpm_header *header = lpm_header(map);
	struct lpm_key wanted;
	struct lpm_place at;
	u32 element = 0;

	if (!seqlock_lock(&header->lock))
		return -ETIMEDOUT;
	if (key) {
		wanted = lpm_key(map, key);
		if (wanted.length <= lpm_max_length(map))
			element = lpm_find_exact(map, &wanted, &at);
	}
	element = element ? lpm_element(map, element - 1)->next : header->first;
	if (element) {
		__builtin_memcpy(next, &lpm_element(map, element - 1)->length, 4);
		load_key((u8 *)next + 4, lpm_element(map, element - 1)->data, lpm_data_bytes(map));
	}
	seqlock_unlock(&header->lock);
	return element ? 0 : -ENOENT;
}

#endif
