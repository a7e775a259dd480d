// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* out_of_bounds: reads a byte behind the bounds that it checked. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int out_of_bounds(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	unsigned char *data = (void *)(long)ctx->data;

	if (data + 14 > (unsigned char *)data_end)
		return XDP_DROP;
	return data[14] ? XDP_PASS : XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
