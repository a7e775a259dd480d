/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* References: net/core/filter.c, bpf_xdp_event_output(); kernel/trace/bpf_trace.c */
#include "../maps/perf.h"

#define BPF_F_INDEX_MASK 0xffffffffull
#define BPF_F_CURRENT_CPU BPF_F_INDEX_MASK
#define BPF_F_CTXLEN_MASK (0xfffffull << 32)

UXDP_HELPER s64 uxdp_helper_perf_event_output(struct uxdp_frame *frame, const struct uxdp_map *map,
					      u64 flags, const void *data, u64 size)
{
	struct uxdp_map ring = perf_ring(map->cpu_store);
	u64 packet = (flags & BPF_F_CTXLEN_MASK) >> 32, index = flags & BPF_F_INDEX_MASK;
	u8 *sample;

	if (unlikely(flags & ~(BPF_F_CTXLEN_MASK | BPF_F_INDEX_MASK)))
		return -EINVAL;
	if (unlikely(packet > frame->data_end - frame->data))
		return -EFAULT;
	if (index == BPF_F_CURRENT_CPU)
		index = uxdp_worker.cpu;
	if (unlikely(index >= perf_entries(map)))
		return -E2BIG;
	if (unlikely(index >= map->num_cpus))
		return -ENOENT;
	if (unlikely(index != uxdp_worker.cpu))
		return -EOPNOTSUPP;
	sample = ringbuf_reserve(&ring, size + packet);
	if (unlikely(!sample)) {
		struct ringbuf *lossy = map->cpu_store;

		__atomic_store_n(&lossy->lost, lossy->lost + 1, __ATOMIC_RELAXED);
		return -ENOSPC;
	}
	__builtin_memcpy(sample, data, size);
	__builtin_memcpy(sample + size, (const void *)frame->data, packet);
	ringbuf_commit(sample, 0, false);
	return 0;
}
