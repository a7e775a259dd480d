// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* settings: constants of every type that can be set; the program copies them to a map. */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum mode { MODE_STRICT = 1, MODE_LOOSE = 2 };

struct range {
	__u16 low;
	__u16 high;
};

const volatile __u32 limit = 64;
const volatile __s16 offset = -3;
const volatile __u64 seed = 0x1122334455667788;
const volatile bool enabled = true;
const volatile enum mode mode = MODE_LOOSE;
const volatile struct range range = {1, 2};
const volatile char label[4] = "abc";
const volatile __u8 other SEC(".rodata.other") = 9;

__u64 runs;

struct copy {
	__u64 seed;
	__u32 limit;
	__u32 mode;
	__s16 offset;
	struct range range;
	char label[4];
	__u8 enabled;
	__u8 other;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct copy);
} copies SEC(".maps");

SEC("xdp")
int settings(struct xdp_md *ctx)
{
	__u32 key = 0;
	struct copy *copy = bpf_map_lookup_elem(&copies, &key);

	if (!copy)
		return XDP_ABORTED;
	runs++;
	copy->seed = seed;
	copy->limit = limit;
	copy->mode = mode;
	copy->offset = offset;
	copy->range.low = range.low;
	copy->range.high = range.high;
	copy->enabled = enabled;
	copy->other = other;
	for (int i = 0; i < 4; i++)
		copy->label[i] = label[i];
	return ctx->rx_queue_index ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
