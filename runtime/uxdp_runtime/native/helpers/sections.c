/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Sections in which a program wants no preemption, no interrupts, or what it reads kept alive.
 *
 * A worker runs one frame after the other and is alone with its slots of per-CPU maps: nothing is
 * to be done. What programs may do in a section, the kernel's verifier has seen to.
 *
 * Reference: kernel/bpf/helpers.c, bpf_preempt_disable() and the following
 */
#include "../memory.h"

UXDP_HELPER void uxdp_kfunc_preempt_disable(void)
{
}

UXDP_HELPER void uxdp_kfunc_preempt_enable(void)
{
}

UXDP_HELPER void uxdp_kfunc_rcu_read_lock(void)
{
}

UXDP_HELPER void uxdp_kfunc_rcu_read_unlock(void)
{
}

UXDP_HELPER void uxdp_kfunc_local_irq_save(u64 *flags)
{
	*flags = 0;
}

UXDP_HELPER void uxdp_kfunc_local_irq_restore(u64 *flags)
{
	*flags = 0;
}
