// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* minimal_twin: minimal.c but for one constant, so that everything but the code is the same. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int minimal(struct xdp_md *ctx)
{
	return ctx->data < ctx->data_end ? XDP_PASS : XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
