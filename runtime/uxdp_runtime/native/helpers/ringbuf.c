/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reference: kernel/bpf/ringbuf.c */
#include "../maps/ringbuf.h"

UXDP_HELPER void *uxdp_helper_ringbuf_reserve(const struct uxdp_map *map, u64 size, u64 flags)
{
	return unlikely(flags) ? NULL : ringbuf_reserve(map, size);
}

UXDP_HELPER s64 uxdp_helper_ringbuf_submit(void *sample, u64 flags)
{
	ringbuf_commit(sample, flags, false);
	return 0;
}

UXDP_HELPER s64 uxdp_helper_ringbuf_discard(void *sample, u64 flags)
{
	ringbuf_commit(sample, flags, true);
	return 0;
}

UXDP_HELPER s64 uxdp_helper_ringbuf_output(const struct uxdp_map *map, const void *data, u64 size,
					   u64 flags)
{
	void *sample;

	if (unlikely(flags & ~(u64)(BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP)))
		return -EINVAL;
	sample = ringbuf_reserve(map, size);
	if (!sample)
		return -EAGAIN;
	__builtin_memcpy(sample, data, size);
	ringbuf_commit(sample, flags, false);
	return 0;
}

UXDP_HELPER u64 uxdp_helper_ringbuf_query(const struct uxdp_map *map, u64 flags)
{
	return ringbuf_query(map, flags);
}
