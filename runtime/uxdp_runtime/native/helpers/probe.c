/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reading by any address. Reference: kernel/trace/bpf_trace.c; mm/maccess.c */
#include "../dynptr.h"
#include "../known_memory.h"

UXDP_HELPER s64 uxdp_helper_probe_read_kernel(void *to, u64 len, u64 from)
{
	s64 error = read_known(to, from, len);

	if (error)
		__builtin_memset(to, 0, (u32)len);
	return error;
}

/*
 * strncpy_from_kernel_nofault(): the length with the 0 at its end, which there is even if the
 * string goes on. Where it cannot be read on, the text is empty.
 */
UXDP_COLD s64 read_known_string(u8 *to, u32 room, u64 from)
{
	u32 bytes, len = 0;

	if (!room)
		return 0;
	bytes = known_bytes(from);
	if (!bytes)
		return unknown_memory(from);
	for (; len < room && len < bytes; len++) {
		to[len] = ((const u8 *)from)[len];
		if (!to[len])
			return len + 1;
	}
	if (len == room) {
		to[len - 1] = 0;
		return len;
	}
	to[0] = 0;
	return -EFAULT;
}

UXDP_HELPER s64 uxdp_helper_probe_read_kernel_str(u8 *to, u64 size, u64 from)
{
	s64 len = read_known_string(to, size, from);

	if (len < 0)
		__builtin_memset(to, 0, (u32)size);
	return len;
}

/* The same into a dynptr; __bpf_dynptr_copy() of kernel/trace/bpf_trace.c. */
UXDP_HELPER s32 uxdp_kfunc_probe_read_kernel_dynptr(const struct dynptr *to, u32 offset, u32 size,
						    u64 from)
{
	void *target = dynptr_slice(to, offset, NULL, size);
	s64 error;

	if (likely(target))
		return read_known(target, from, size);
	error = dynptr_check(to, offset, size);
	for (u32 done = 0, part; !error && done < size; done += part) {
		u8 piece[256];

		part = size - done < sizeof(piece) ? size - done : sizeof(piece);
		if (read_known(piece, from + done, part))
			return -EFAULT;
		error = dynptr_write(to, offset + done, piece, part, 0);
	}
	return error;
}

UXDP_HELPER s32 uxdp_kfunc_probe_read_kernel_str_dynptr(const struct dynptr *to, u32 offset,
							u32 size, u64 from)
{
	void *target = dynptr_slice(to, offset, NULL, size);
	u32 done = 0, part;
	s64 error;

	if (likely(target))
		return read_known_string(target, size, from);
	error = dynptr_check(to, offset, size);
	if (error)
		return error;
	/* Each piece but the last ends in a 0 that the next one overwrites. */
	for (; done < size; done += part - 1) {
		u8 piece[256];
		s64 len;

		part = size - done < sizeof(piece) ? size - done : sizeof(piece);
		len = read_known_string(piece, part, from + done);
		if (len < 0)
			return len;
		error = dynptr_write(to, offset + done, piece, len, 0);
		if (error)
			return error;
		if (len < part || part == 1)
			return done + len;
	}
	return done;
}
