// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Several ways to a lookup that is worth looking ahead for, and some that end before it.
 *
 * Frames are told apart by their second byte, the flow is the four bytes from the sixth on.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum way {
	WAY_DIRECT,
	WAY_SMALL_MAP_FIRST,
	WAY_WRITES_FRAME_FIRST,
	WAY_WRITES_MAP_FIRST,
	WAY_MOVES_FRAME_FIRST,
	WAY_TREE,
	WAY_LOOP,
	WAY_INNER,
	WAY_NOWHERE,
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, __u64);
} flows SEC(".maps");

struct table {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 15);
	__type(key, __u32);
	__type(value, __u64);
} flows_of_cpu0 SEC(".maps"), other_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct table);
} tables SEC(".maps") = {.values = {&flows_of_cpu0}};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} aliases SEC(".maps");

struct prefix {
	__u32 length;
	__u32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 14);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u64);
} routes SEC(".maps");

__u64 seen;

static __always_inline int count(void *table, __u32 key)
{
	__u64 one = 1, *packets = bpf_map_lookup_elem(table, &key);

	if (packets) {
		__sync_fetch_and_add(packets, 1);
		return *packets % 3 ? XDP_PASS : XDP_TX;
	}
	bpf_map_update_elem(table, &key, &one, BPF_ANY);
	return XDP_DROP;
}

SEC("xdp")
int look_ahead(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct prefix prefix = {.length = 32};
	__u32 key, *alias, cpu;
	void *table;
	__u64 *route;

	if (data + 14 > (unsigned char *)data_end)
		return XDP_ABORTED;
	__builtin_memcpy(&key, data + 6, sizeof(key));

	switch (data[1]) {
	case WAY_DIRECT:
		return count(&flows, key);
	case WAY_SMALL_MAP_FIRST:
		alias = bpf_map_lookup_elem(&aliases, &key);
		return count(&flows, alias ? *alias : key + (bpf_ktime_get_ns() == 1));
	case WAY_WRITES_FRAME_FIRST:
		data[0] ^= 0xff;
		return count(&flows, key);
	case WAY_WRITES_MAP_FIRST:
		seen++;
		return count(&flows, key);
	case WAY_MOVES_FRAME_FIRST:
		if (bpf_xdp_adjust_head(ctx, -8))
			return XDP_ABORTED;
		return count(&flows, key);
	case WAY_TREE:
		prefix.address = key;
		route = bpf_map_lookup_elem(&routes, &prefix);
		return route && *route ? XDP_REDIRECT : XDP_PASS;
	case WAY_LOOP:
		for (int i = 2; i < 6; i++) {
			if (data[i] & 0x80)
				key = key * 31 + data[i];
		}
		return count(&flows, key);
	case WAY_INNER:
		cpu = bpf_get_smp_processor_id();
		table = bpf_map_lookup_elem(&tables, &cpu);
		return count(table ?: &other_flows, key);
	default:
		return XDP_PASS;
	}
}

char _license[] SEC("license") = "Dual MIT/GPL";
