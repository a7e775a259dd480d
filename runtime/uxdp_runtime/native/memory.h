/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Words, copies and locks in stores.
 *
 * A word that another thread may touch at the same time is accessed with __atomic builtins. Keys
 * are copied and compared in such words, since an element may be given to another key while
 * somebody still compares it. Values are copied as plain memory, as in the kernel: who reads a
 * value while it changes sees both, but never a torn word of eight bytes.
 */
#ifndef UXDP_MEMORY_H
#define UXDP_MEMORY_H

#include "kernel.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define CACHE_LINE 64u

/* What is seldom needed stays a function of its own. */
#define UXDP_COLD static __attribute__((noinline, cold))

#if defined(__SANITIZE_THREAD__)
#define UXDP_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UXDP_TSAN 1
#endif
#endif

UXDP_INLINE u64 round_up_to(u64 value, u64 unit)
{
	return (value + unit - 1) / unit * unit;
}

/* The least n with 1 << n >= value; value >= 1. */
UXDP_INLINE u32 log2_up(u64 value)
{
	return value <= 1 ? 0 : 64 - (u32)__builtin_clzll(value - 1);
}

/*
 * Between optimistic reads and the check that they were not disturbed. ThreadSanitizer does not
 * know fences; it needs none, because what is checked is read with acquire semantics as well.
 */
UXDP_INLINE void read_fence(void)
{
#ifndef UXDP_TSAN
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
}

/* Between a change that readers check for and the writes that they must not miss it for. */
UXDP_INLINE void write_fence(void)
{
#ifndef UXDP_TSAN
	__atomic_thread_fence(__ATOMIC_RELEASE);
#endif
}

UXDP_INLINE void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) && defined(__clang__)
	__builtin_arm_yield();
#endif
}

UXDP_INLINE u32 load_u32(const void *p)
{
	u32 value;

	__builtin_memcpy(&value, p, sizeof(value));
	return value;
}

UXDP_INLINE u64 big_endian_u64(u64 word)
{
	return __builtin_bswap64(word); /* both targets are little-endian */
}

/* --- keys --- */

UXDP_INLINE u32 key_words(u32 key_size)
{
	return (key_size + 7) / 8;
}

/* The i-th word of a key in the program's memory; the last one is filled up with zeros. */
UXDP_INLINE u64 key_word(const void *key, u32 i, u32 key_size)
{
	u32 rest = key_size - i * 8;
	u64 word = 0;

	if (rest >= 8)
		__builtin_memcpy(&word, (const u8 *)key + i * 8, 8);
	else if (rest == 4)
		__builtin_memcpy(&word, (const u8 *)key + i * 8, 4);
	else
		__builtin_memcpy(&word, (const u8 *)key + i * 8, rest);
	return word;
}

UXDP_INLINE void store_key(u64 *shared, const void *key, u32 key_size)
{
	for (u32 i = 0; i < key_words(key_size); i++)
		__atomic_store_n(&shared[i], key_word(key, i, key_size), __ATOMIC_RELAXED);
}

UXDP_INLINE bool equals_key(const u64 *shared, const void *key, u32 key_size)
{
	u64 difference = 0;

	for (u32 i = 0; i < key_words(key_size); i++)
		difference |=
		    __atomic_load_n(&shared[i], __ATOMIC_RELAXED) ^ key_word(key, i, key_size);
	return difference == 0;
}

UXDP_INLINE void load_key(void *key, const u64 *shared, u32 key_size)
{
	for (u32 i = 0; i < key_words(key_size); i++) {
		u64 word = __atomic_load_n(&shared[i], __ATOMIC_RELAXED);
		u32 rest = key_size - i * 8;

		__builtin_memcpy((u8 *)key + i * 8, &word, rest < 8 ? rest : 8);
	}
}

/* --- values --- */

UXDP_INLINE void copy_value(void *to, const void *from, u64 size)
{
#ifdef UXDP_TSAN
	u64 i = 0;

	for (; i + 8 <= size; i += 8) {
		u64 word;

		__builtin_memcpy(&word, (const u8 *)from + i, 8);
		__atomic_store_n((u64 *)((u8 *)to + i), word, __ATOMIC_RELAXED);
	}
	for (; i < size; i++)
		__atomic_store_n((u8 *)to + i, ((const u8 *)from)[i], __ATOMIC_RELAXED);
#else
	__builtin_memcpy(to, from, size);
#endif
}

UXDP_INLINE void zero_value(void *to, u64 size)
{
#ifdef UXDP_TSAN
	for (u64 i = 0; i < size; i++)
		__atomic_store_n((u8 *)to + i, 0, __ATOMIC_RELAXED);
#else
	__builtin_memset(to, 0, size);
#endif
}

/* From a store to somebody's buffer. */
UXDP_INLINE void read_value(void *to, const void *from, u64 size)
{
#ifdef UXDP_TSAN
	for (u64 i = 0; i + 8 <= round_up_to(size, 8); i += 8) {
		u64 word = __atomic_load_n((const u64 *)((const u8 *)from + i), __ATOMIC_RELAXED);

		__builtin_memcpy((u8 *)to + i, &word, size - i < 8 ? size - i : 8);
	}
#else
	__builtin_memcpy(to, from, size);
#endif
}

/* --- locks --- */

/*
 * How often to look at a taken lock before giving up. A holder is preempted for some milliseconds
 * at worst; one that died holds its lock forever. The kernel waits 0.25 s (RES_DEF_TIMEOUT,
 * kernel/bpf/rqspinlock.c); a look takes some 40 ns.
 */
#define UXDP_SPINS (6u << 20)
/* Who looks less often leaves the line of the cache, and the next turns, to those who have it. */
#define UXDP_MAX_PAUSES 32u

/*
 * A lock that is also a version: odd while somebody holds it, and never the same after a change.
 * Readers compare two looks; they wait for nobody.
 */
UXDP_COLD bool seqlock_wait(u32 *lock)
{
	for (u32 spins = 0, pauses = 1; spins < UXDP_SPINS; spins += pauses) {
		u32 seen = __atomic_load_n(lock, __ATOMIC_RELAXED);

		if (!(seen & 1) && __atomic_compare_exchange_n(lock, &seen, seen + 1, false,
							       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
		pauses = pauses < UXDP_MAX_PAUSES ? pauses * 2 : pauses;
		for (u32 i = 0; i < pauses; i++)
			cpu_relax();
	}
	return false;
}

UXDP_INLINE bool seqlock_lock(u32 *lock)
{
	u32 seen = __atomic_load_n(lock, __ATOMIC_RELAXED);

	if (unlikely(seen & 1 ||
		     !__atomic_compare_exchange_n(lock, &seen, seen + 1, false, __ATOMIC_ACQUIRE,
						  __ATOMIC_RELAXED)) &&
	    !seqlock_wait(lock))
		return false;
	write_fence(); /* what the holder of an earlier lock gave up may be written to from here on
			*/
	return true;
}

UXDP_INLINE void seqlock_unlock(u32 *lock)
{
	__atomic_store_n(lock, __atomic_load_n(lock, __ATOMIC_RELAXED) + 1, __ATOMIC_RELEASE);
}

/* --- values with a struct bpf_spin_lock --- */

#define LOCK_BYTES 4u

UXDP_INLINE bool has_lock(const struct uxdp_map *map)
{
	return (map->kind == BPF_MAP_TYPE_HASH || map->kind == BPF_MAP_TYPE_ARRAY) && map->extra;
}

UXDP_INLINE u32 *lock_of(const struct uxdp_map *map, void *value)
{
	return (u32 *)((u8 *)value + map->extra - 1);
}

/* What a process that died has locked is free again when nobody can be waiting for it any more. */
UXDP_COLD void value_lock_wait(u32 *lock)
{
	for (u32 spins = 0; spins < UXDP_SPINS; spins++) {
		u32 seen = __atomic_load_n(lock, __ATOMIC_RELAXED);

		if (!seen && __atomic_compare_exchange_n(lock, &seen, 1, false, __ATOMIC_ACQUIRE,
							 __ATOMIC_RELAXED))
			return;
		cpu_relax();
	}
}

UXDP_INLINE void value_lock(u32 *lock)
{
	u32 seen = 0;

	if (unlikely(!__atomic_compare_exchange_n(lock, &seen, 1, false, __ATOMIC_ACQUIRE,
						  __ATOMIC_RELAXED)))
		value_lock_wait(lock);
}

UXDP_INLINE void value_unlock(u32 *lock)
{
	__atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* copy_map_value(): the lock is left as it is. */
UXDP_INLINE void copy_map_value(const struct uxdp_map *map, void *to, const void *from)
{
	u64 before = has_lock(map) ? map->extra - 1u : map->value_size;

	copy_value(to, from, before);
	if (has_lock(map))
		copy_value((u8 *)to + before + LOCK_BYTES, (const u8 *)from + before + LOCK_BYTES,
			   map->value_size - before - LOCK_BYTES);
}

/* copy_map_value_locked(), into the map. */
UXDP_INLINE void copy_map_value_locked(const struct uxdp_map *map, void *to, const void *from)
{
	value_lock(lock_of(map, to));
	copy_map_value(map, to, from);
	value_unlock(lock_of(map, to));
}

/* From the map to somebody's buffer, who sees no lock, and no value that changes meanwhile. */
UXDP_SMALL static void read_map_value(const struct uxdp_map *map, void *to, const void *from)
{
	if (!has_lock(map)) {
		read_value(to, from, map->value_size);
		return;
	}
	value_lock(lock_of(map, (void *)from));
	read_value(to, from, map->value_size);
	value_unlock(lock_of(map, (void *)from));
	__builtin_memset(lock_of(map, to), 0, LOCK_BYTES);
}

#endif
