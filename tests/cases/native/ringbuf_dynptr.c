// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Records of a length that is known when a frame is there: reserved as dynptrs, written, submitted
 * and discarded; too long ones, flags, and a ring without room. */
#include "kfuncs.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 14);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} small SEC(".maps");

SEC("xdp")
int ringbuf_dynptr(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), length = word >> 3 & 255;
	struct bpf_dynptr record, frame;
	__u32 *start;

	bpf_dynptr_from_xdp(ctx, 0, &frame);
	note(0, bpf_ringbuf_reserve_dynptr(&ring, length, 0, &record));
	note(1, bpf_dynptr_size(&record));
	note(2, bpf_dynptr_copy(&record, 0, &frame, 0, 14));
	note(3, bpf_dynptr_write(&record, length - 4, &word, sizeof(word), 0));
	start = bpf_dynptr_data(&record, 4, sizeof(*start));
	if (start)
		*start = word;
	if (word & 7)
		bpf_ringbuf_submit_dynptr(&record, BPF_RB_NO_WAKEUP);
	else
		bpf_ringbuf_discard_dynptr(&record, 0);

	note(4, bpf_ringbuf_reserve_dynptr(&ring, 8, word & 1, &record));
	note(5, bpf_dynptr_is_null(&record));
	bpf_dynptr_memset(&record, 0, 8, 3);
	bpf_ringbuf_submit_dynptr(&record, BPF_RB_FORCE_WAKEUP);
	note(6, bpf_ringbuf_reserve_dynptr(&ring, 1 << 24, 0, &record));
	bpf_ringbuf_submit_dynptr(&record, 0);
	note(7, bpf_ringbuf_reserve_dynptr(&small, word >> 8 & 4095, 0, &record));
	note(8, bpf_dynptr_memset(&record, 0, bpf_dynptr_size(&record), word));
	bpf_ringbuf_discard_dynptr(&record, 0);
	return XDP_PASS;
}
