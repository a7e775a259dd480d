// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Records that a control plane has left: taken out one by one and many at once, until a callback
 * says stop. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} commands SEC(".maps");

struct drained {
	__u64 sum;
	__u32 left;
};

static long take(struct bpf_dynptr *dynptr, struct drained *drained)
{
	__u8 bytes[12] = {};

	note(0, bpf_dynptr_read(bytes, sizeof(bytes), dynptr, 0, 0));
	note(1, bpf_dynptr_read(bytes, 2, dynptr, 1, 0));
	for (__u32 i = 0; i < sizeof(bytes); i++)
		drained->sum = drained->sum * 31 + bytes[i];
	return drained->left-- == 0;
}

SEC("xdp")
int user_ringbuf(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct drained drained = {.left = word >> 5 & 3};

	note(2, bpf_user_ringbuf_drain(&commands, take, &drained, word & 3));
	note(3, bpf_user_ringbuf_drain(&commands, take, &drained, word & 4));
	note(4, drained.sum + drained.left);
	return XDP_PASS;
}
