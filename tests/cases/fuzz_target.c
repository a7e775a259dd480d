// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A verdict that hides behind a number that is computed, an element that a control plane sets, and
 * a frame before. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct policy {
	__u32 seen, flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u16);
	__type(value, struct policy);
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} unrelated SEC(".maps");

SEC("xdp")
int fuzz_target(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	__u32 *words = data + 14, index = 1;
	struct policy *policy;
	__u64 *count;

	count = bpf_map_lookup_elem(&unrelated, &index);
	if (count)
		(*count)++;
	if ((void *)(words + 2) > data_end)
		return XDP_PASS;
	if (words[1] != words[0] * 3 + 0x1234567)
		return XDP_PASS;
	policy = bpf_map_lookup_elem(&policies, data + 12);
	if (!policy)
		return XDP_DROP;
	if (!(policy->flags & 4))
		return XDP_DROP;
	if (++policy->seen < 2)
		return XDP_ABORTED;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
