// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Ring buffers that nobody reads: sizes that fit no longer, that never fit, and an unsubmitted one.
 */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} small SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1048576);
} large SEC(".maps");

__u8 data[8192];

SEC("xdp")
int ringbuf_full(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *event, size = word & 8191;

	event = bpf_ringbuf_reserve(&small, 4096, 0);
	note(0, !event);
	if (event)
		bpf_ringbuf_discard(event, 0);
	event = bpf_ringbuf_reserve(&small, 8, 1);
	note(1, !event);
	if (event)
		bpf_ringbuf_discard(event, 0);
	note(2, bpf_ringbuf_output(&small, data, size & 255, BPF_RB_NO_WAKEUP));
	note(3, bpf_ringbuf_output(&small, data, word >> 16 & 31, BPF_RB_FORCE_WAKEUP));
	note(4, bpf_ringbuf_output(&large, data, size, word >> 8 & 7));
	if (word % 64 == 0)
		note(5, bpf_ringbuf_output(&large, data, sizeof(data), 0));
	event = bpf_ringbuf_reserve(&large, 100, 0);
	if (event) {
		note(6, bpf_ringbuf_output(&large, data, 1, 0));
		event[24] = word;
		bpf_ringbuf_submit(event, word & BPF_RB_FORCE_WAKEUP);
	}
	return event ? XDP_PASS : XDP_DROP;
}
