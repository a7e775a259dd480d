/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * USER_RINGBUF: records from a control plane for programs.
 *
 * Memory is laid out as that of RINGBUF. The kernel does not trust who fills its ring, and neither
 * is done here, since the memory is shared: a record is judged by what its header says now, once.
 *
 * Reference: kernel/bpf/ringbuf.c, __bpf_user_ringbuf_peek(), bpf_user_ringbuf_drain()
 */
#ifndef UXDP_MAPS_USER_RINGBUF_H
#define UXDP_MAPS_USER_RINGBUF_H

#include "ringbuf.h"
#include "../dynptr.h"

#define USER_RINGBUF_MAX_SAMPLES (128u << 10) /* BPF_MAX_USER_RINGBUF_SAMPLES */
#define ENODATA 61

/* From the control plane, one thread at a time. */
UXDP_SMALL static s64 user_ringbuf_produce(const struct uxdp_map *map, const void *data, u64 size)
{
	struct ringbuf *ring = map->store;
	u64 bytes = round_up_to(size + BPF_RINGBUF_HDR_SZ, 8);
	u64 consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
	u64 producer = __atomic_load_n(&ring->producer, __ATOMIC_RELAXED);
	struct ringbuf_record *record;

	if (size > DYNPTR_MAX_SIZE || bytes > map->max_entries)
		return -E2BIG;
	if (bytes > map->max_entries - (producer - consumer))
		return -ENOSPC;
	record = ringbuf_record(ring, map->max_entries - 1, producer);
	record->page_offset = 0;
	__builtin_memcpy(record + 1, data, size);
	__atomic_store_n(&record->len, (u32)size, __ATOMIC_RELEASE);
	__atomic_store_n(&ring->producer, producer + bytes, __ATOMIC_RELEASE);
	return 0;
}

/* The next record, or an error; -EAGAIN: it was discarded. */
UXDP_INLINE s64 user_ringbuf_peek(const struct uxdp_map *map, void **sample, u32 *size)
{
	struct ringbuf *ring = map->store;
	u64 producer = __atomic_load_n(&ring->producer, __ATOMIC_ACQUIRE);
	u64 consumer = __atomic_load_n(&ring->consumer, __ATOMIC_ACQUIRE);
	struct ringbuf_record *record = ringbuf_record(ring, map->max_entries - 1, consumer);
	u32 header, len;
	u64 bytes;

	if (producer % 8)
		return -EINVAL;
	if (consumer >= producer)
		return -ENODATA;
	header = __atomic_load_n(&record->len, __ATOMIC_ACQUIRE);
	len = header & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
	bytes = record_bytes(header);
	if (bytes > producer - consumer)
		return -EINVAL;
	if (bytes > map->max_entries || len > DYNPTR_MAX_SIZE)
		return -E2BIG;
	if (header & BPF_RINGBUF_DISCARD_BIT) {
		__atomic_store_n(&ring->consumer, consumer + bytes, __ATOMIC_RELEASE);
		return -EAGAIN;
	}
	if (header & BPF_RINGBUF_BUSY_BIT)
		return -ENODATA;
	*sample = record + 1;
	*size = len;
	return 0;
}

typedef s64 (*uxdp_sample_callback)(struct dynptr *sample, void *context);

/* The lock is what the kernel has as "busy". */
UXDP_INLINE s64 user_ringbuf_drain(const struct uxdp_map *map, uxdp_sample_callback callback,
				   void *context)
{
	struct ringbuf *ring = map->store;
	s64 samples = 0, discarded = 0, stop = 0;
	u32 idle = 0;

	if (!__atomic_compare_exchange_n(&ring->lock, &idle, 1, false, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED))
		return -EBUSY;
	for (; samples < USER_RINGBUF_MAX_SAMPLES && !stop; samples++) {
		struct dynptr dynptr;
		void *sample;
		u32 size;
		s64 error = user_ringbuf_peek(map, &sample, &size);

		if (error == -EAGAIN) {
			discarded++;
			continue;
		}
		if (error) {
			if (error != -ENODATA)
				samples = error;
			break;
		}
		dynptr_init(&dynptr, (u64)sample, DYNPTR_LOCAL, size);
		stop = callback(&dynptr, context);
		__atomic_store_n(&ring->consumer,
				 ring->consumer + round_up_to(size + BPF_RINGBUF_HDR_SZ, 8),
				 __ATOMIC_RELEASE);
	}
	__atomic_store_n(&ring->lock, 0, __ATOMIC_RELEASE);
	return samples < 0 ? samples : samples - discarded;
}

#endif
