/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Dynptrs; see dynptr.h. Reference: kernel/bpf/helpers.c; kernel/bpf/ringbuf.c */
#include "../dynptr.h"
#include "../maps/user_ringbuf.h"

/* --- helpers --- */

UXDP_HELPER s64 uxdp_helper_dynptr_from_mem(void *data, u64 size, u64 flags, struct dynptr *p)
{
	s64 error = unlikely((u32)size > DYNPTR_MAX_SIZE) ? -E2BIG : unlikely(flags) ? -EINVAL : 0;

	if (error)
		dynptr_set_null(p);
	else
		dynptr_init(p, (u64)data, DYNPTR_LOCAL, size);
	return error;
}

UXDP_HELPER s64 uxdp_helper_dynptr_read(void *to, u64 len, const struct dynptr *p, u64 offset,
					u64 flags)
{
	return dynptr_read(to, len, p, offset, flags);
}

UXDP_HELPER s64 uxdp_helper_dynptr_write(const struct dynptr *p, u64 offset, const void *from,
					 u64 len, u64 flags)
{
	return dynptr_write(p, offset, from, len, flags);
}

UXDP_HELPER void *uxdp_helper_dynptr_data(const struct dynptr *p, u64 offset, u64 len)
{
	if (unlikely(!p->data || dynptr_check(p, offset, len) || dynptr_type(p) == DYNPTR_XDP))
		return NULL;
	return (void *)dynptr_pointer(p, offset, len);
}

UXDP_HELPER s64 uxdp_helper_ringbuf_reserve_dynptr(const struct uxdp_map *map, u64 size, u64 flags,
						   struct dynptr *p)
{
	void *sample;

	dynptr_set_null(p);
	if (unlikely(flags))
		return -EINVAL;
	if (unlikely((u32)size > DYNPTR_MAX_SIZE))
		return -E2BIG;
	sample = ringbuf_reserve(map, (u32)size);
	if (!sample)
		return -EINVAL;
	dynptr_init(p, (u64)sample, DYNPTR_RINGBUF, size);
	return 0;
}

UXDP_INLINE s64 commit_dynptr(struct dynptr *p, u64 flags, bool discard)
{
	if (p->data)
		ringbuf_commit((void *)p->data, flags, discard);
	dynptr_set_null(p);
	return 0;
}

UXDP_HELPER s64 uxdp_helper_ringbuf_submit_dynptr(struct dynptr *p, u64 flags)
{
	return commit_dynptr(p, flags, false);
}

UXDP_HELPER s64 uxdp_helper_ringbuf_discard_dynptr(struct dynptr *p, u64 flags)
{
	return commit_dynptr(p, flags, true);
}

/* Nobody sleeps here who could be woken. */
UXDP_HELPER s64 uxdp_helper_user_ringbuf_drain(const struct uxdp_map *map,
					       uxdp_sample_callback callback, void *context,
					       u64 flags)
{
	if (unlikely(flags & ~(u64)(BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP)))
		return -EINVAL;
	return user_ringbuf_drain(map, callback, context);
}

/* --- kfuncs --- */

UXDP_HELPER s32 uxdp_kfunc_dynptr_from_xdp(const struct uxdp_frame *frame, u64 flags,
					   struct dynptr *p)
{
	if (unlikely(flags)) {
		dynptr_set_null(p);
		return -EINVAL;
	}
	dynptr_init(p, (u64)frame, DYNPTR_XDP, frame->data_end - frame->data);
	return 0;
}

UXDP_HELPER void *uxdp_kfunc_dynptr_slice(const struct dynptr *p, u32 offset, void *buffer, u32 len)
{
	return dynptr_slice(p, offset, buffer, len);
}

/* No dynptr of an XDP program is read-only. */
UXDP_HELPER void *uxdp_kfunc_dynptr_slice_rdwr(const struct dynptr *p, u32 offset, void *buffer,
					       u32 len)
{
	return dynptr_slice(p, offset, buffer, len);
}

UXDP_HELPER u32 uxdp_kfunc_dynptr_is_rdonly(const struct dynptr *p)
{
	(void)p;
	return false;
}

UXDP_HELPER u32 uxdp_kfunc_dynptr_is_null(const struct dynptr *p)
{
	return !p->data;
}

UXDP_HELPER u32 uxdp_kfunc_dynptr_size(const struct dynptr *p)
{
	return p->data ? dynptr_size(p) : (u32)-EINVAL;
}

UXDP_HELPER s32 uxdp_kfunc_dynptr_adjust(struct dynptr *p, u32 start, u32 end)
{
	u32 size = dynptr_size(p);

	if (unlikely(!p->data || start > end))
		return -EINVAL;
	if (unlikely(end > size))
		return -ERANGE;
	p->offset += start;
	p->size = (p->size & ~DYNPTR_MAX_SIZE) | (end - start);
	return 0;
}

UXDP_HELPER s32 uxdp_kfunc_dynptr_clone(const struct dynptr *p, struct dynptr *clone)
{
	if (unlikely(!p->data)) {
		dynptr_set_null(clone);
		return -EINVAL;
	}
	*clone = *p;
	return 0;
}

UXDP_HELPER s32 uxdp_kfunc_dynptr_copy(const struct dynptr *to, u32 to_offset,
				       const struct dynptr *from, u32 from_offset, u32 size)
{
	void *source = dynptr_slice(from, from_offset, NULL, size);
	void *target = dynptr_slice(to, to_offset, NULL, size);

	if (likely(source && target)) {
		__builtin_memmove(target, source, size);
		return 0;
	}
	if (source)
		return dynptr_write(to, to_offset, source, size, 0);
	if (target)
		return dynptr_read(target, size, from, from_offset, 0);
	if (dynptr_check(to, to_offset, size) || dynptr_check(from, from_offset, size))
		return -E2BIG;
	/* Both are longer than the frame is now. The kernel copies in pieces of 256 bytes, the
	 * first ones of which may be there. */
	for (u32 done = 0, part; done < size; done += part) {
		u8 piece[256];
		s32 error;

		part = size - done < sizeof(piece) ? size - done : sizeof(piece);
		error = dynptr_read(piece, part, from, from_offset + done, 0);
		if (!error)
			error = dynptr_write(to, to_offset + done, piece, part, 0);
		if (error)
			return error;
	}
	return 0;
}

UXDP_HELPER s32 uxdp_kfunc_dynptr_memset(const struct dynptr *p, u32 offset, u32 size, u32 value)
{
	void *target = dynptr_slice(p, offset, NULL, size);

	if (likely(target)) {
		__builtin_memset(target, (u8)value, size);
		return 0;
	}
	if (dynptr_check(p, offset, size))
		return -E2BIG;
	for (u32 done = 0, part; done < size; done += part) {
		u8 piece[256];
		s32 error;

		part = size - done < sizeof(piece) ? size - done : sizeof(piece);
		__builtin_memset(piece, (u8)value, part);
		error = dynptr_write(p, offset + done, piece, part, 0);
		if (error)
			return error;
	}
	return 0;
}
