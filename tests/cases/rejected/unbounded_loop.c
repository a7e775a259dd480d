// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* unbounded_loop: nobody knows how often it runs; the verifier follows it until it gives up. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int unbounded_loop(struct xdp_md *ctx)
{
	__u32 value = ctx->rx_queue_index;
	__u32 steps = 0;

	while (value != 1) {
		value = value & 1 ? 3 * value + 1 : value / 2;
		steps++;
	}
	return steps > 100 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
