// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* state: frames of an EtherType of their own are sent back, with what was found in maps and in the
 * context written into them; all others are passed. Versions of it differ in what is defined. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef VERSION
#define VERSION 1
#endif
#ifndef FLOW_MEMBERS
#define FLOW_MEMBERS __u64 frames
#endif
#ifndef GLOBALS
#define GLOBALS __u64 seen
#endif

struct report {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__be16 protocol;
	__u32 number;
	__u8 version;
	__u8 mark;
	__u8 stage;
	__u8 flow;
	__u32 ifindex;
	__u32 queue;
	__u32 seen;
} __attribute__((packed));

struct settings {
	__u32 mark;
	__be32 address;
};

struct flow {
	FLOW_MEMBERS;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__type(key, __be32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} per_worker SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 3);
	__type(value, __be32);
} jobs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 1000);
	__uint(map_extra, 4);
	__type(value, __u32);
} numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} answered SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} sampled SEC(".maps");

struct group {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__type(key, __be32);
	__type(value, __u64);
} residents SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, struct group);
} groups SEC(".maps") = {
    .values = {[1] = &residents},
};

int stage_one(struct xdp_md *ctx);
int stage_two(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, int(struct xdp_md *));
} stages SEC(".maps") = {
    .values = {[0] = (void *)&stage_one},
};

GLOBALS;
__u32 limit = 7;

static struct report *report_of(struct xdp_md *ctx)
{
	struct report *report = (void *)(long)ctx->data;

	if ((void *)(report + 1) > (void *)(long)ctx->data_end ||
	    report->protocol != bpf_htons(ETH_P_802_EX1))
		return 0;
	return report;
}

static int send_back(struct xdp_md *ctx, __u8 stage)
{
	struct report *report = report_of(ctx);
	__u8 address[ETH_ALEN];

	if (!report)
		return XDP_DROP;
	report->stage = stage;
	__builtin_memcpy(address, report->source, ETH_ALEN);
	__builtin_memcpy(report->source, report->destination, ETH_ALEN);
	__builtin_memcpy(report->destination, address, ETH_ALEN);
	return XDP_TX;
}

/* Counts an address that is a member of a group. */
static void count_member(__u32 number, __be32 address)
{
	void *group = bpf_map_lookup_elem(&groups, &number);
	__u64 *frames = group ? bpf_map_lookup_elem(group, &address) : NULL;

	if (frames)
		__sync_fetch_and_add(frames, 1);
}

SEC("xdp")
int state(struct xdp_md *ctx)
{
	struct report *report = report_of(ctx);
	__u32 zero = 0, job = 0, number, key = bpf_htonl(0x0a000001);
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct flow *flow = bpf_map_lookup_elem(&flows, &key);
	__u64 *count = bpf_map_lookup_elem(&per_worker, &zero);

	if (!report)
		return XDP_PASS;
	if (!set || !count)
		return XDP_ABORTED;
	*count += 1;
	seen += 1;
	bpf_map_push_elem(&numbers, &report->number, BPF_ANY);
	number = report->number;
	bpf_ringbuf_output(&answered, &number, 4, 0);
	bpf_perf_event_output(ctx, &sampled, BPF_F_CURRENT_CPU | 6ull << 32, &zero, 4);
	if (!bpf_map_pop_elem(&jobs, &job))
		bpf_map_push_elem(&numbers, &job, BPF_ANY);
	count_member(0, key);
	count_member(1, key);
	report->version = VERSION;
	report->mark = set->mark;
	report->flow = 0;
	if (flow) {
		__sync_fetch_and_add(&flow->frames, 1);
		report->flow = flow->frames;
	}
	report->ifindex = ctx->ingress_ifindex;
	report->queue = ctx->rx_queue_index;
	report->seen = seen > limit ? seen : limit;
	bpf_tail_call(ctx, &stages, 0);
	if (limit == 1000)
		return bpf_redirect_map(&ports, 0, XDP_DROP);
	return send_back(ctx, 0);
}

SEC("xdp")
int stage_one(struct xdp_md *ctx)
{
	return send_back(ctx, 1);
}

SEC("xdp")
int stage_two(struct xdp_md *ctx)
{
	return send_back(ctx, 2);
}

char _license[] SEC("license") = "Dual MIT/GPL";
