// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Drop UDP packets to the ports in a hash table. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u16);
	__type(value, __u64);
} closed SEC(".maps");

SEC("xdp")
int ports(struct xdp_md *ctx)
{
	__u16 port = udp_port((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	__u64 *hits = bpf_map_lookup_elem(&closed, &port);

	if (!hits)
		return XDP_PASS;
	__sync_fetch_and_add(hits, 1);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
