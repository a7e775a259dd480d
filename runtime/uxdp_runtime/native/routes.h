/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Answers of bpf_fib_lookup that a worker keeps. There may be one for each pair of addresses, so an
 * answer about IPv4 is one cache line, and what only others need is in a second one, its rest.
 *
 * An answer is found by a set: a line with the number of the answer and some bits of its hash, for
 * sixteen keys. Answers are taken one after the other, so memory is touched for as many as there
 * have been. When all are taken, or all sixteen of a set, one that chance points to is given up;
 * the oldest one would be the next to be asked for, if more flows than that take turns.
 *
 * All is one worker's and of one process: private memory of zeros, in which no answer is current.
 *
 * Reference: net/core/filter.c, bpf_ipv4_fib_lookup(), bpf_ipv6_fib_lookup()
 */
#ifndef UXDP_ROUTES_H
#define UXDP_ROUTES_H

#include "memory.h"
#include "question.h"

#define UXDP_ROUTES (1u << 17) /* number 0 is none */
#define UXDP_ROUTE_SETS (1u << 14)
#define UXDP_ROUTE_SLOTS 16u
#define UXDP_ROUTE_TAG (~(UXDP_ROUTES - 1))

/* What a lookup leaves changed; of these parts each is written as a whole or not at all. */
enum uxdp_route_part {
	UXDP_ROUTE_TOT_LEN = 1,
	UXDP_ROUTE_VLAN = 2, /* to 0 */
	UXDP_ROUTE_MACS = 4,
	UXDP_ROUTE_METRIC = 8,
	UXDP_ROUTE_LONG_VLAN = 16, /* the same in what is too long: a table's number is taken out */
	/* These are in the rest. */
	UXDP_ROUTE_FAMILY = 32,
	UXDP_ROUTE_SRC = 64,
	UXDP_ROUTE_SRC_REST = 128,
	UXDP_ROUTE_DST_REST = 256,
	UXDP_ROUTE_IN_REST = ~31,
};

struct uxdp_route {
	u64 stamp;  /* when it was asked, see kernel_stamp() */
	u64 key[3]; /* family, l4_protocol, sport, dport, flags; ifindex, tos; src[0], dst[0] */
	s16 result;
	u16 longest; /* tot_len beyond is too long, and gets this */
	u16 tot_len;
	u16 parts; /* enum uxdp_route_part */
	u32 ifindex;
	u32 metric;
	u32 dst;
	u8 macs[12];
};

struct uxdp_route_rest {
	/* More of the key, zeros where the lookup does not depend on it: src and dst[1..3], tbid,
	 * mark
	 */
	u64 key[4];
	/* More of the answer. */
	u32 to_src[4];
	u32 to_dst[3];
	u32 to_family;
};

struct uxdp_routes {
	u64 used; /* answers that have been taken */
	u64 zero[7];
	u32 slots[UXDP_ROUTE_SETS][UXDP_ROUTE_SLOTS]; /* a tag and a number; 0: empty */
	struct uxdp_route routes[UXDP_ROUTES];
	struct uxdp_route_rest rests[UXDP_ROUTES];
};

_Static_assert(sizeof(struct uxdp_route) == 64, "a cache line");
_Static_assert(sizeof(struct uxdp_route_rest) == 64, "a cache line");

enum {
	BPF_FIB_LOOKUP_DIRECT = 1,
	BPF_FIB_LOOKUP_OUTPUT = 2,
	BPF_FIB_LOOKUP_SKIP_NEIGH = 4,
	BPF_FIB_LOOKUP_TBID = 8,
	BPF_FIB_LOOKUP_SRC = 16,
	BPF_FIB_LOOKUP_MARK = 32,
	/* Those of which it is known what a lookup depends on. */
	ROUTE_FLAGS = 63,
	ROUTE_FLAGS_WITH_REST = BPF_FIB_LOOKUP_TBID | BPF_FIB_LOOKUP_SRC | BPF_FIB_LOOKUP_MARK,
	ROUTE_AF_INET = 2,
};

/* A program's struct bpf_fib_lookup, wherever it lies. */
typedef struct uxdp_fib program_fib __attribute__((aligned(1), may_alias));

/* What is looked for: a key in words, of which the last four are the rest's. */
struct wanted_route {
	u64 words[7];
	bool has_rest;
	u64 hash;
};

UXDP_INLINE u64 fold_product(u64 one, u64 other)
{
	unsigned __int128 product = (unsigned __int128)one * other;

	return (u64)product ^ (u64)(product >> 64);
}

/* Odd constants without meaning. */
UXDP_INLINE u64 route_hash(const u64 *words, bool has_rest)
{
	u64 hash = fold_product(words[0] ^ 0xa0761d6478bd642full, words[1] ^ 0xe7037ed1a0b428dbull);

	hash ^= fold_product(words[2] ^ 0x8ebc6af09c88c6e3ull, 0x589965cc75374cc3ull);
	if (has_rest) {
		hash ^= fold_product(words[3] ^ 0x1d8e4e27c47d124full,
				     words[4] ^ 0xeb44accab455d165ull);
		hash ^= fold_product(words[5] ^ 0x9c6e6877736c46e3ull,
				     words[6] ^ 0xd6e8feb86659fd93ull);
	}
	return hash * 0xff51afd7ed558ccdull;
}

UXDP_INLINE u64 word_of(u32 low, u32 high)
{
	return low | (u64)high << 32;
}

/*
 * Field by field, so that what the program has just stored need not go through memory: as words of
 * memory it would have to wait for all of these stores.
 */
UXDP_INLINE struct wanted_route wanted_route(const program_fib *fib, u32 flags)
{
	bool is_ipv4 = fib->family == ROUTE_AF_INET;
	u32 tbid = flags & BPF_FIB_LOOKUP_TBID ? fib->tbid : 0, mark = 0;
	struct wanted_route wanted = {0};

	if (flags & BPF_FIB_LOOKUP_MARK)
		__builtin_memcpy(&mark, fib->smac, sizeof(mark));
	wanted.words[0] = fib->family | (u32)fib->l4_protocol << 8 | (u32)fib->sport << 16 |
			  (u64)fib->dport << 32 | (u64)flags << 48;
	/* The first byte is tos, all of it is flowinfo. */
	wanted.words[1] = word_of(fib->ifindex, is_ipv4 ? *(const u8 *)&fib->tos : fib->tos);
	wanted.words[2] = word_of(fib->src[0], fib->dst[0]);
	if (!is_ipv4) {
		wanted.words[3] = word_of(fib->src[1], fib->src[2]);
		wanted.words[4] = word_of(fib->src[3], fib->dst[1]);
		wanted.words[5] = word_of(fib->dst[2], fib->dst[3]);
	}
	wanted.words[6] = word_of(tbid, mark);
	wanted.has_rest = !is_ipv4 || flags & ROUTE_FLAGS_WITH_REST;
	wanted.hash = route_hash(wanted.words, wanted.has_rest);
	return wanted;
}

UXDP_INLINE u32 *route_set(struct uxdp_routes *routes, u64 hash)
{
	return routes->slots[hash >> 32 & (UXDP_ROUTE_SETS - 1)];
}

/* Bits of a hash as they are in slots: none of them is 0. */
UXDP_INLINE u32 route_tag(u64 hash)
{
	return ((u32)hash & UXDP_ROUTE_TAG) | UXDP_ROUTES;
}

/* A bit for each slot with this tag. */
UXDP_INLINE u32 route_matches(const u32 *set, u32 tag)
{
#ifdef __clang__
	typedef u32 words __attribute__((vector_size(64)));
	typedef bool flags __attribute__((ext_vector_type(16)));
	flags equal = __builtin_convertvector((*(const words *)set & UXDP_ROUTE_TAG) == tag, flags);
	u16 mask;

	__builtin_memcpy(&mask, &equal, sizeof(mask));
	return mask;
#else
	u32 mask = 0;

	for (u32 i = 0; i < UXDP_ROUTE_SLOTS; i++)
		mask |= (u32)((set[i] & UXDP_ROUTE_TAG) == tag) << i;
	return mask;
#endif
}

UXDP_INLINE bool is_route_of(const struct uxdp_routes *routes, u32 number,
			     const struct wanted_route *wanted)
{
	const u64 *key = routes->routes[number].key, *rest = routes->rests[number].key;
	const u64 *words = wanted->words;

	if ((key[0] ^ words[0]) | (key[1] ^ words[1]) | (key[2] ^ words[2]))
		return false;
	return !wanted->has_rest || !((rest[0] ^ words[3]) | (rest[1] ^ words[4]) |
				      (rest[2] ^ words[5]) | (rest[3] ^ words[6]));
}

/* The number of an answer, current or not; 0: there is none. */
UXDP_INLINE u32 find_route(struct uxdp_routes *routes, const struct wanted_route *wanted)
{
	const u32 *set = route_set(routes, wanted->hash);
	u32 matches = route_matches(set, route_tag(wanted->hash));

	for (; matches; matches &= matches - 1) {
		u32 number = set[__builtin_ctz(matches)] & ~UXDP_ROUTE_TAG;

		if (likely(is_route_of(routes, number, wanted)))
			return number;
	}
	return 0;
}

/* Have an answer no more found by its key. */
UXDP_INLINE void give_up_route(struct uxdp_routes *routes, u32 number)
{
	u64 words[7], protocols = routes->routes[number].key[0];
	bool has_rest = (u8)protocols != ROUTE_AF_INET || protocols >> 48 & ROUTE_FLAGS_WITH_REST;
	u32 *set;

	__builtin_memcpy(words, routes->routes[number].key, 3 * sizeof(u64));
	__builtin_memcpy(&words[3], routes->rests[number].key, 4 * sizeof(u64));
	set = route_set(routes, route_hash(words, has_rest));
	for (u32 i = 0; i < UXDP_ROUTE_SLOTS; i++)
		if ((set[i] & ~UXDP_ROUTE_TAG) == number)
			set[i] = 0;
}

/* Take an answer for a key that has none; it is not current. chance is any number. */
UXDP_INLINE u32 take_route(struct uxdp_routes *routes, const struct wanted_route *wanted,
			   u64 chance)
{
	u32 *set = route_set(routes, wanted->hash);
	u32 slot = chance % UXDP_ROUTE_SLOTS, number = 0;

	for (u32 i = 0; i < UXDP_ROUTE_SLOTS; i++)
		if (!set[i])
			slot = i;
	if (set[slot]) {
		number = set[slot] & ~UXDP_ROUTE_TAG;
	} else if (routes->used + 1 < UXDP_ROUTES) {
		number = ++routes->used;
	} else {
		number = 1 + (chance >> 32) % (UXDP_ROUTES - 1);
		give_up_route(routes, number);
	}
	routes->routes[number].stamp = 0;
	__builtin_memcpy(routes->routes[number].key, wanted->words, 3 * sizeof(u64));
	if (wanted->has_rest)
		__builtin_memcpy(routes->rests[number].key, &wanted->words[3], 4 * sizeof(u64));
	set[slot] = route_tag(wanted->hash) | number;
	return number;
}

/*
 * Fetching what a lookup will read, as in maps/prefetch.h: the set, then the answer that it leads
 * to. The place is the hash, but for bits of it that neither set nor tag has.
 */
UXDP_INLINE u64 prefetch_route_set(struct uxdp_routes *routes, const struct wanted_route *wanted)
{
	__builtin_prefetch(route_set(routes, wanted->hash));
	return (wanted->hash & ~1ull) | wanted->has_rest;
}

UXDP_INLINE void prefetch_route(struct uxdp_routes *routes, u64 place)
{
	const u32 *set = route_set(routes, place);
	u32 matches = route_matches(set, route_tag(place));
	u32 number = matches ? set[__builtin_ctz(matches)] & ~UXDP_ROUTE_TAG : 0;

	__builtin_prefetch(&routes->routes[number]);
	if (place & 1)
		__builtin_prefetch(&routes->rests[number]);
}

#endif
