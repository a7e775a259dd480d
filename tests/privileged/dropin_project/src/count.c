// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Count frames and bytes; drop the longer ones. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "shared.h"

const volatile __u32 max_len_bytes = 1500;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void add(__u32 counter, __u64 amount)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += amount;
}

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 len = ctx->data_end - ctx->data;

	add(COUNTER_FRAMES, 1);
	add(COUNTER_BYTES, len);
	return len > max_len_bytes ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
