// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Kfuncs that a program can do without: one that there is, one that there is not. */
#include "kfuncs.h"

extern __u32 bpf_dynptr_size___of_6_6(const struct bpf_dynptr *p) __ksym __weak;
extern int bpf_dynptr_adjust(const struct bpf_dynptr *p, __u32 start, __u32 end) __ksym __weak;
extern int bpf_no_such_kfunc(struct xdp_md *ctx, __u64 number) __ksym __weak;

SEC("xdp")
int kfunc_weak(struct xdp_md *ctx)
{
	struct bpf_dynptr frame;

	bpf_dynptr_from_xdp(ctx, 0, &frame);
	if (bpf_dynptr_adjust)
		note(0, bpf_dynptr_adjust(&frame, 2, 14));
	else
		note(0, 1);
	if (bpf_no_such_kfunc)
		note(1, bpf_no_such_kfunc(ctx, 3));
	else
		note(1, 2);
	if (bpf_dynptr_size___of_6_6)
		note(2, bpf_dynptr_size___of_6_6(&frame));
	return bpf_no_such_kfunc ? XDP_DROP : XDP_PASS;
}
