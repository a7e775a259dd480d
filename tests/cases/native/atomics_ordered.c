// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Loads that acquire and stores that release, of all widths, as instructions of cpu v4; ordered
 * operations with the old value. */
#include "common.h"

__u64 wide = 5;
__u32 narrow = 6;
__u16 half = 7;
__u8 byte = 8;

SEC("xdp")
int atomics_ordered(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	__atomic_store_n(&wide, __atomic_load_n(&wide, __ATOMIC_ACQUIRE) * 3 + word,
			 __ATOMIC_RELEASE);
	__atomic_store_n(&narrow, __atomic_load_n(&narrow, __ATOMIC_ACQUIRE) * 5 + word,
			 __ATOMIC_RELEASE);
	__atomic_store_n(&half, __atomic_load_n(&half, __ATOMIC_ACQUIRE) * 7 + word,
			 __ATOMIC_RELEASE);
	__atomic_store_n(&byte, __atomic_load_n(&byte, __ATOMIC_ACQUIRE) * 9 + word,
			 __ATOMIC_RELEASE);
	note(0, __atomic_load_n(&wide, __ATOMIC_RELAXED));
	note(1, __atomic_load_n(&narrow, __ATOMIC_ACQUIRE));
	note(2, __atomic_load_n(&half, __ATOMIC_ACQUIRE));
	note(3, __atomic_load_n(&byte, __ATOMIC_ACQUIRE));
	note(4, __atomic_fetch_add(&wide, word, __ATOMIC_RELAXED));
	note(5, __atomic_fetch_sub(&wide, word, __ATOMIC_ACQ_REL));
	note(6, __atomic_fetch_and(&narrow, ~word, __ATOMIC_SEQ_CST));
	note(7, __atomic_fetch_or(&narrow, word, __ATOMIC_ACQUIRE));
	note(8, __atomic_exchange_n(&narrow, word, __ATOMIC_SEQ_CST));
	return XDP_PASS;
}
