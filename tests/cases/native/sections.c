// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Sections without preemption or interrupts, and under RCU's lock; data that is pulled to the
 * front, where it is already. */
#include "kfuncs.h"

extern void bpf_preempt_disable(void) __ksym;
extern void bpf_preempt_enable(void) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;
extern void bpf_local_irq_save(unsigned long *flags) __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym;
extern int bpf_xdp_pull_data(struct xdp_md *ctx, __u32 length) __ksym;

SEC("xdp")
int sections(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	unsigned long flags;

	bpf_preempt_disable();
	note(0, word);
	bpf_rcu_read_lock();
	note(1, word);
	bpf_rcu_read_unlock();
	bpf_preempt_enable();
	bpf_local_irq_save(&flags);
	note(2, word);
	bpf_local_irq_restore(&flags);
	note(3, bpf_xdp_pull_data(ctx, word & 127));
	note(4, bpf_xdp_pull_data(ctx, 0));
	note(5, bpf_xdp_pull_data(ctx, word));
	return word & 1 ? XDP_TX : XDP_PASS;
}
