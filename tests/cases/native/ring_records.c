// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What is in a ring buffer's records: two rings, all flags, lengths from 0, discarded ones, words
 * not written, a time. "other" writes one byte differently: a comparison with it must fail. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} small SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} large SEC(".maps");

struct event {
	__u64 time_ns;
	__u32 word;
	__u8 bytes[36];
};

static __always_inline int report(struct xdp_md *ctx, __u8 last)
{
	__u32 word = frame_word(ctx);
	__u8 bytes[32] = {word, word >> 8};
	struct event *event;

	event = bpf_ringbuf_reserve(&large, sizeof(*event), 0);
	note(0, !!event);
	if (event) {
		event->time_ns = bpf_ktime_get_ns();
		event->word = word;
		event->bytes[word & 31] = last;
		event->bytes[35] = last;
		if (word % 5)
			bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
		else
			bpf_ringbuf_discard(event, BPF_RB_NO_WAKEUP);
	}
	note(1, bpf_ringbuf_output(&small, bytes, word & 31, 0));
	note(2, bpf_ringbuf_output(&small, bytes, 0, BPF_RB_NO_WAKEUP));
	return XDP_PASS;
}

SEC("xdp")
int records(struct xdp_md *ctx)
{
	return report(ctx, 1);
}

SEC("xdp")
int other(struct xdp_md *ctx)
{
	return report(ctx, 2);
}
