// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Samples with bytes of the packet, for this CPU and for others, of all lengths; wrong flags and
 * indices. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_PRESERVE_ELEMS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} first_cpu SEC(".maps");

SEC("xdp")
int perf_output(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u64 length = ctx->data_end - ctx->data, size = word & 31;
	__u8 about[32] = {};

	__builtin_memcpy(about, &word, sizeof(word));
	__builtin_memcpy(about + 20, &length, sizeof(length));
	note(0, bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU, about, sizeof(about)));
	note(1, bpf_perf_event_output(ctx, &samples,
				      BPF_F_CURRENT_CPU | (__u64)(word >> 5 & 127) << 32, about,
				      size));
	note(2, bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU | length << 32, about, 4));
	note(3, bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU | (length + 1) << 32, about,
				      4));
	note(4, bpf_perf_event_output(ctx, &samples, word >> 12 & 1, about, 8));
	note(5, bpf_perf_event_output(ctx, &samples, 1000 + (word >> 12 & 1), about, 8));
	note(6, bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU | 1ull << 52, about, 8));
	note(7, bpf_perf_event_output(ctx, &first_cpu, word >> 12 & 1, about, 1));
	return XDP_PASS;
}
