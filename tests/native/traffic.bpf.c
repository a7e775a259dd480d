/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The other end of a benchmark on a veth pair: "generate" makes traffic when it is run by
 * BPF_PROG_TEST_RUN with live frames, "count" is attached and counts what comes back.
 */
#include "../../runtime/uxdp_runtime/native/bpf/bpf.h"

#define HEAD_WORDS 8

struct head {
	__u64 word[HEAD_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 14); /* flows, a power of two */
	__type(key, __u32);
	__type(value, struct head);
} heads SEC(".maps");

struct counts {
	__u64 frames;
	__u64 bytes;
	__u64 next;
	__u64 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2); /* sent, received */
	__type(key, __u32);
	__type(value, struct counts);
} counts SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u32 key = 0, flow;
	struct counts *sent = bpf_map_lookup_elem(&counts, &key);
	__u64 *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct head *head;

	if (!sent)
		return XDP_DROP;
	flow = sent->next++ & ((1 << 14) - 1);
	head = bpf_map_lookup_elem(&heads, &flow);
	if (!head || data + HEAD_WORDS > data_end)
		return XDP_DROP;
	for (int i = 0; i < HEAD_WORDS; i++)
		data[i] = head->word[i];
	sent->frames++;
	return XDP_TX;
}

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 key = 1;
	struct counts *received = bpf_map_lookup_elem(&counts, &key);

	if (received) {
		received->frames++;
		received->bytes += ctx->data_end - ctx->data;
	}
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
