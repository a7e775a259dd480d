// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* minimal: the smallest bundle with everything that every bundle has; drops empty frames. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int minimal(struct xdp_md *ctx)
{
	return ctx->data < ctx->data_end ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
