// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_get_smp_processor_id: one CPU runs all frames, and per-CPU memory is its own. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} by_cpu SEC(".maps");

SEC("xdp")
int processor(struct xdp_md *ctx)
{
	__u32 cpu = bpf_get_smp_processor_id(), key = cpu & 255;
	__u64 *count = bpf_map_lookup_elem(&by_cpu, &key);

	if (!count)
		return XDP_ABORTED;
	*count += 1;
	note(0, cpu);
	note(1, bpf_get_smp_processor_id() == cpu);
	return XDP_PASS;
}
