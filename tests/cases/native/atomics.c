// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* All atomic operations, 32 and 64 bits, with and without the old value. */
#include "common.h"

__u64 wide = 5;
__u32 narrow = 6;

SEC("xdp")
int atomics(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	__sync_fetch_and_add(&wide, word);
	note(0, __sync_fetch_and_add(&wide, 3));
	note(1, __sync_fetch_and_sub(&wide, 9));
	note(2, __sync_fetch_and_and(&wide, ~(__u64)word));
	note(3, __sync_fetch_and_or(&wide, (__u64)word << 20));
	note(4, __sync_fetch_and_xor(&wide, 0x5555));
	note(5, __sync_lock_test_and_set(&wide, wide + word));
	note(6, __sync_val_compare_and_swap(&wide, wide, word));
	note(7, __sync_val_compare_and_swap(&wide, wide + 1, word));
	note(8, __sync_fetch_and_add(&narrow, word));
	note(9, __sync_fetch_and_xor(&narrow, word));
	note(10, __sync_lock_test_and_set(&narrow, word * 3));
	note(11, __sync_val_compare_and_swap(&narrow, narrow, word));
	return XDP_PASS;
}
