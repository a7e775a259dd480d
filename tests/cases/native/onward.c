// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Redirects to devmaps and cpumaps that may name programs, and such programs beside the one that is
 * tested; nobody names them here. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} cpus SEC(".maps");

SEC("xdp")
int onward(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	if (word & 16)
		return bpf_redirect_map(&cpus, word & 3, word >> 2 & 3);
	return bpf_redirect_map(&ports, word & 7, word >> 3 & 3);
}

SEC("xdp/devmap")
int leaving(struct xdp_md *ctx)
{
	note(0, ctx->egress_ifindex);
	return XDP_PASS;
}

SEC("xdp/cpumap")
int arriving(struct xdp_md *ctx)
{
	note(1, ctx->ingress_ifindex);
	return bpf_redirect_map(&ports, 1, 0);
}
