/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reading by any address. Reference: kernel/trace/bpf_trace.c; mm/maccess.c */
#include "../known_memory.h"

UXDP_HELPER s64 uxdp_helper_probe_read_kernel(void *to, u64 len, u64 from)
{
	s64 error = read_known(to, from, len);

	if (error)
		__builtin_memset(to, 0, (u32)len);
	return error;
}

/* The length with the 0 at its end, which there is even if the string goes on. */
UXDP_HELPER s64 uxdp_helper_probe_read_kernel_str(u8 *to, u64 size, u64 from)
{
	u32 bytes, len = 0, room = size;

	if (!room)
		return 0;
	bytes = known_bytes(from);
	for (; len < room && len < bytes; len++) {
		to[len] = ((const u8 *)from)[len];
		if (!to[len])
			return len + 1;
	}
	if (len == room) {
		to[len - 1] = 0;
		return len;
	}
	__builtin_memset(to, 0, room);
	return bytes ? -EFAULT : unknown_memory(from);
}
