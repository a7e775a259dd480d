// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The clocks: none goes back, and each is as far from the others as it must be. */
#include "common.h"

#define SECOND 1000000000ULL

__u64 last_ns, last_boot_ns, last_tai_ns, last_coarse_ns, last_jiffies;

SEC("xdp")
int time(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns(), boot = bpf_ktime_get_boot_ns();
	__u64 coarse = bpf_ktime_get_coarse_ns(), tai = bpf_ktime_get_tai_ns();
	__u64 jiffies = bpf_jiffies64(), later = bpf_ktime_get_ns();

	note(0, now >= last_ns);
	note(1, boot >= last_boot_ns);
	note(2, tai >= last_tai_ns);
	note(3, coarse >= last_coarse_ns);
	note(4, jiffies >= last_jiffies);
	note(5, later >= now && later - now < SECOND);
	note(6, coarse <= later && later - coarse < SECOND);
	note(7, boot + 1000 >= now);
	note(8, tai > boot);
	last_ns = now;
	last_boot_ns = boot;
	last_tai_ns = tai;
	last_coarse_ns = coarse;
	last_jiffies = jiffies;
	return later - now < SECOND ? XDP_PASS : XDP_ABORTED;
}
