/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Reading by addresses that nobody has checked.
 *
 * bpf_probe_read_kernel and its like take any address; in the kernel they read whatever is there,
 * or fail. A program of ours may read what is the program's: its maps, its global data and
 * constants, the frame at hand, and the stack of the burst that is run. All other addresses are
 * what addresses of user space are in the kernel, -ERANGE, or, in the upper half, those of nothing,
 * -EFAULT. So is the end of what is known, where the kernel would read on.
 *
 * References: mm/maccess.c; arch/x86/mm/maccess.c
 */
#ifndef UXDP_KNOWN_MEMORY_H
#define UXDP_KNOWN_MEMORY_H

#include "memory.h"

/* How many bytes can be read from an address on; at most UINT32_MAX. 0: none. */
UXDP_COLD u32 known_bytes(u64 address)
{
	const struct uxdp_frame *frame = uxdp_worker.frame;
	u64 stack = (u64)__builtin_frame_address(0), bytes = 0;

	if (frame && address >= frame->hard_start && address < frame->limit)
		bytes = frame->limit - address;
	else if (address >= stack && address < uxdp_worker.stack_top)
		bytes = uxdp_worker.stack_top - address;
	for (u64 i = 0; i < uxdp_worker.num_memory && !bytes; i++) {
		const struct uxdp_range *range = &uxdp_worker.memory[i];

		if (address >= range->start && address < range->end)
			bytes = range->end - address;
	}
	return bytes < UINT32_MAX ? bytes : UINT32_MAX;
}

/* What the kernel says of an address of which nothing can be read. */
UXDP_INLINE s64 unknown_memory(u64 address)
{
	return address >> 63 ? -EFAULT : -ERANGE;
}

/* copy_from_kernel_nofault() */
UXDP_INLINE s64 read_known(void *to, u64 from, u32 len)
{
	u32 bytes = known_bytes(from);

	if (!bytes)
		return unknown_memory(from);
	if (bytes < len)
		return -EFAULT;
	__builtin_memmove(to, (const void *)from, len);
	return 0;
}

#endif
