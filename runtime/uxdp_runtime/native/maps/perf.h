/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * PERF_EVENT_ARRAY: samples for a reader, from each CPU into a buffer of its own.
 *
 * In the kernel an entry is an event that somebody opened for one CPU and mapped into memory. Here
 * every worker has one from the start, under its own number, as if libbpf's perf_buffer__new() had
 * been called: a ring as that of RINGBUF, of UXDP_PERF_BYTES. What finds no room there is lost and
 * counted.
 *
 * References: kernel/trace/bpf_trace.c, __bpf_perf_event_output(); kernel/events/ring_buffer.c
 */
#ifndef UXDP_MAPS_PERF_H
#define UXDP_MAPS_PERF_H

#include "ringbuf.h"

#define UXDP_PERF_BYTES (4u << 20)

UXDP_INLINE bool perf_is_valid(const struct uxdp_map *map)
{
	/* With BPF_F_PRESERVE_ELEMS events stay when their owner goes; here they always do. */
	u32 known = BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_PRESERVE_ELEMS;

	return map->key_size == 4 && map->value_size == 4 && !(map->flags & ~known);
}

/* libbpf gives a map that is declared without a size one entry for each CPU. */
UXDP_INLINE u32 perf_entries(const struct uxdp_map *map)
{
	return map->max_entries ? map->max_entries : map->num_cpus;
}

/* One CPU's ring, as a map. */
UXDP_INLINE struct uxdp_map perf_ring(void *part)
{
	return (struct uxdp_map){
	    .kind = BPF_MAP_TYPE_RINGBUF, .max_entries = UXDP_PERF_BYTES, .store = part};
}

UXDP_INLINE u64 perf_cpu_bytes(void)
{
	struct uxdp_map ring = perf_ring(NULL);

	return ringbuf_bytes(&ring);
}

#endif
