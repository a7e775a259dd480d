/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Dynptrs: what a program holds in a struct bpf_dynptr on its stack.
 *
 * The verifier lets a program do nothing with it but pass it on, so what is in it is ours: 16 bytes
 * as the kernel has them. Of a frame there is no pointer in it that would be used: a dynptr of a
 * frame means the frame at hand, whatever is written over it, and each use compares with that
 * frame's bounds as they are then. Its size stays what it was when it was made, as in the kernel,
 * where adjusting the frame does not change it either.
 *
 * References: include/linux/bpf.h, struct bpf_dynptr_kern; kernel/bpf/helpers.c, bpf_dynptr_*;
 * net/core/filter.c, bpf_xdp_pointer(), bpf_xdp_copy_buf()
 */
#ifndef UXDP_DYNPTR_H
#define UXDP_DYNPTR_H

#include "memory.h"

enum dynptr_type {
	DYNPTR_LOCAL = 1,
	DYNPTR_RINGBUF = 2,
	DYNPTR_XDP = 4,
};

struct dynptr {
	u64 data; /* 0: null */
	u32 size; /* bits 0 to 23; the type is in bits 28 to 30 */
	u32 offset;
};

_Static_assert(sizeof(struct dynptr) == 16, "as large as struct bpf_dynptr");

#define DYNPTR_MAX_SIZE ((1u << 24) - 1)
#define DYNPTR_TYPE_SHIFT 28

UXDP_INLINE u32 dynptr_size(const struct dynptr *p)
{
	return p->size & DYNPTR_MAX_SIZE;
}

UXDP_INLINE enum dynptr_type dynptr_type(const struct dynptr *p)
{
	return p->size >> DYNPTR_TYPE_SHIFT & 7;
}

UXDP_INLINE void dynptr_init(struct dynptr *p, u64 data, enum dynptr_type type, u32 size)
{
	p->data = data;
	p->size = size | (u32)type << DYNPTR_TYPE_SHIFT;
	p->offset = 0;
}

UXDP_INLINE void dynptr_set_null(struct dynptr *p)
{
	p->data = 0;
	p->size = 0;
	p->offset = 0;
}

UXDP_INLINE s64 dynptr_check(const struct dynptr *p, u32 offset, u32 len)
{
	u32 size = dynptr_size(p);

	return unlikely(len > size || offset > size - len) ? -E2BIG : 0;
}

/* bpf_xdp_pointer(), of a frame in one piece: the address, or -errno. */
UXDP_INLINE s64 frame_pointer(const struct uxdp_frame *frame, u32 offset, u32 len)
{
	if (unlikely(offset > 0xffff || len > 0xffff))
		return -EFAULT;
	if (unlikely(offset + len > frame->data_end - frame->data))
		return -EINVAL;
	return frame->data + offset;
}

/* The address of a part that is in one piece, or -errno; checks no more than the kernel does. */
UXDP_INLINE s64 dynptr_pointer(const struct dynptr *p, u32 offset, u32 len)
{
	return dynptr_type(p) == DYNPTR_XDP
		   ? frame_pointer(uxdp_worker.frame, p->offset + offset, len)
		   : (s64)(p->data + p->offset + offset);
}

UXDP_INLINE void *dynptr_slice(const struct dynptr *p, u32 offset, void *buffer, u32 len)
{
	const struct uxdp_frame *frame = uxdp_worker.frame;
	s64 pointer;

	if (unlikely(!p->data || dynptr_check(p, offset, len)))
		return NULL;
	pointer = dynptr_pointer(p, offset, len);
	if (likely(pointer > 0))
		return (void *)pointer;
	if (buffer) { /* the frame has shrunk: what there is of it is copied */
		u64 start = p->offset + offset, size = frame->data_end - frame->data;

		if (start < size)
			__builtin_memcpy(buffer, (const void *)(frame->data + start),
					 len < size - start ? len : size - start);
	}
	return buffer;
}

UXDP_INLINE s64 dynptr_read(void *to, u32 len, const struct dynptr *p, u32 offset, u64 flags)
{
	s64 pointer;

	if (unlikely(!p->data || flags))
		return -EINVAL;
	if (unlikely(dynptr_check(p, offset, len)))
		return -E2BIG;
	pointer = dynptr_pointer(p, offset, len);
	if (unlikely(pointer < 0))
		return pointer;
	__builtin_memmove(to, (const void *)pointer, len);
	return 0;
}

UXDP_INLINE s64 dynptr_write(const struct dynptr *p, u32 offset, const void *from, u32 len,
			     u64 flags)
{
	s64 pointer;

	if (unlikely(!p->data))
		return -EINVAL;
	if (unlikely(dynptr_check(p, offset, len)))
		return -E2BIG;
	if (unlikely(flags))
		return -EINVAL;
	pointer = dynptr_pointer(p, offset, len);
	if (unlikely(pointer < 0))
		return pointer;
	__builtin_memmove((void *)pointer, from, len);
	return 0;
}

#endif
