/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reference: kernel/bpf/helpers.c, bpf_spin_lock(); the verifier lets a program hold one at a time
 */
#include "../memory.h"

UXDP_HELPER s64 uxdp_helper_spin_lock(u32 *lock)
{
	value_lock(lock);
	return 0;
}

UXDP_HELPER s64 uxdp_helper_spin_unlock(u32 *lock)
{
	value_unlock(lock);
	return 0;
}
