// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Ring buffers: reserve, submit, discard, output, and one that gets full. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

SEC("xdp")
int ringbuf(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), *event;

	event = bpf_ringbuf_reserve(&events, 40, 0);
	note(0, !!event);
	if (event) {
		event[0] = word;
		event[9] = ~word;
		if (word % 3)
			bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
		else
			bpf_ringbuf_discard(event, 0);
	}
	note(1, bpf_ringbuf_output(&events, &word, sizeof(word), word % 2));
	note(2, bpf_ringbuf_output(&events, &word, sizeof(word), 1 << 5));
	return XDP_PASS;
}
