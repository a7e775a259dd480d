// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bridge: what comes in by one port leaves by the other, which a devmap names by the first. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} across SEC(".maps");

SEC("xdp")
int bridge(struct xdp_md *ctx)
{
	return bpf_redirect_map(&across, ctx->ingress_ifindex, XDP_ABORTED);
}

char _license[] SEC("license") = "Dual MIT/GPL";
