/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bpf_csum_diff: the ones' complement sum of what is added minus what is taken away.
 *
 * Since Linux commit 6a4794d5a3e2 ("bpf: bpf_csum_diff: Optimize and homogenize for all archs") (in
 * v6.13) the result is folded to 16 bits on every architecture, and sizes need not be multiples
 * of 4. A sum of 0 and one of 0xffff stay apart: it is 0 only if all that went in was.
 *
 * References: net/core/filter.c, bpf_csum_diff(); include/net/checksum.h
 */
#include "../memory.h"

UXDP_INLINE u32 csum_fold_64(u64 sum)
{
	sum = (sum & UINT32_MAX) + (sum >> 32);
	return (sum & UINT32_MAX) + (sum >> 32);
}

/* csum_partial(); what is left of the last word is filled up with zeros */
UXDP_INLINE u32 csum_bytes(const void *data, u32 bytes, u32 seed)
{
	u64 sum = seed;
	u32 i, last = 0;

	for (i = 0; i + 4 <= bytes; i += 4)
		sum += load_u32((const u8 *)data + i);
	__builtin_memcpy(&last, (const u8 *)data + i, bytes % 4);
	return csum_fold_64(sum + last);
}

UXDP_HELPER s64 uxdp_helper_csum_diff(const void *from, u64 from_size, const void *to, u64 to_size,
				      u64 seed)
{
	u32 removed = from_size, added = to_size, sum = seed;

	if (removed && added)
		sum = csum_fold_64((u64)csum_bytes(to, added, sum) +
				   (u32)~csum_bytes(from, removed, 0));
	else if (added)
		sum = csum_bytes(to, added, sum);
	else if (removed)
		sum = ~csum_bytes(from, removed, ~sum);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}
