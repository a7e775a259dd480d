// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_ringbuf_query: what is in it, its size, both positions, and a question that is none. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8192);
} events SEC(".maps");

SEC("xdp")
int ringbuf_query(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(0, bpf_ringbuf_output(&events, &word, word & 3, 0));
	note(1, bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA));
	note(2, bpf_ringbuf_query(&events, BPF_RB_RING_SIZE));
	note(3, bpf_ringbuf_query(&events, BPF_RB_CONS_POS));
	note(4, bpf_ringbuf_query(&events, BPF_RB_PROD_POS));
	note(5, bpf_ringbuf_query(&events, word >> 8 & 15));
	return XDP_PASS;
}
