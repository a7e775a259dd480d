// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * many_facts: something of each kind that a manifest records.
 *
 * Several programs and flags, helpers reached through a subprogram and a callback, a kfunc, maps
 * with and without BTF types, a map of maps, global data, and constants of every type that a
 * parameter has.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Tests set these to get almost the same bundle. */
#ifndef BURST_LIMIT
#define BURST_LIMIT 64
#endif
#ifndef FLOWS
#define FLOWS 1024
#endif
#ifndef LICENSE
#define LICENSE "Dual MIT/GPL"
#endif

enum mode { MODE_STRICT = 1, MODE_LOOSE = 2 };

struct limits {
	__u16 low;
	__u16 high;
};

const volatile __u32 burst_limit = BURST_LIMIT;
const volatile int offset_bytes = -3;
const volatile enum mode mode = MODE_LOOSE;
const volatile struct limits limits = {.low = 1, .high = 0x1234};
const volatile char label[4] = "lab";

__u64 frames_seen;

struct inner {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, __u32);
	__type(value, struct limits);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__uint(key_size, sizeof(__u32));
	__array(values, struct inner);
} tables SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 8);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct bpf_cpumap_val));
} cpus SEC(".maps");

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym __weak;

static long count_down(__u32 index, void *total)
{
	*(__u64 *)total += bpf_ktime_get_ns() + index;
	return 0;
}

__attribute__((noinline)) int classify(struct xdp_md *ctx)
{
	__u32 key = ctx->ingress_ifindex;
	struct limits *found = bpf_map_lookup_elem(&flows, &key);

	if (!found || mode == MODE_STRICT || label[0] != 'l')
		return XDP_PASS;
	return found->low > limits.low ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int first(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;
	__u64 total = 0;

	if (data + 14 > (__u8 *)data_end)
		return XDP_DROP;
	bpf_loop(burst_limit, count_down, &total, 0);
	frames_seen += total + offset_bytes;
	return classify(ctx);
}

SEC("xdp.frags")
int second(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 timestamp = 0;
	void *table = bpf_map_lookup_elem(&tables, &key);

	if (!table)
		return XDP_ABORTED;
	if (bpf_xdp_metadata_rx_timestamp)
		bpf_xdp_metadata_rx_timestamp(ctx, &timestamp);
	return bpf_map_lookup_elem(table, &key) ? XDP_PASS : bpf_redirect_map(&cpus, 0, 0);
}

SEC("xdp/cpumap")
int on_cpu(struct xdp_md *ctx)
{
	return ctx->rx_queue_index ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = LICENSE;
