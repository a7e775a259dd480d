// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Helpers without arguments: what they return must at least be of the right kind. */
#include "common.h"

SEC("xdp")
int numbers(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns(), boot = bpf_ktime_get_boot_ns();

	note(0, bpf_get_smp_processor_id());
	note(1, boot >= now);
	note(2, bpf_ktime_get_coarse_ns() <= bpf_ktime_get_ns());
	note(3, bpf_jiffies64() > 0);
	note(4, bpf_get_prandom_u32() == bpf_get_prandom_u32() && now == boot + 1);
	note(5, ctx->ingress_ifindex);
	note(6, ctx->rx_queue_index);
	return XDP_PASS;
}
