// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_csum_diff: sizes that are no multiple of 4, carries, seeds of all bits, memory of a map and
 * of the frame. */
#include "common.h"

__u8 memory[512];

SEC("xdp")
int checksum_sizes(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), size = word & 511;
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	__be32 ones[4] = {~0, ~0, ~0, ~0};

	memory[size] ^= word >> 9;
	note(0, bpf_csum_diff(NULL, 0, (void *)memory, size, word));
	note(1, bpf_csum_diff((void *)memory, size, NULL, 0, word >> 3));
	note(2, bpf_csum_diff((void *)memory, size, (void *)(memory + 1), size >> 1, ~word));
	note(3, bpf_csum_diff(NULL, 0, ones, word & 15, 0xffffffff));
	note(4, bpf_csum_diff(ones, word & 15, NULL, 0, 0));
	note(5, bpf_csum_diff(ones, 16, ones, 16, 0));
	note(6, bpf_csum_diff(ones, 5, (void *)memory, 7, 0xffff));
	if (data + 14 <= data_end)
		note(7, bpf_csum_diff(NULL, 0, data, 14, 0));
	if (data + 34 <= data_end)
		note(8, bpf_csum_diff(data + 14, 4, data + 18, 16, word & 0xffff));
	return XDP_PASS;
}
