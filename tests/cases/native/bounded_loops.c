// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Loops with bounds that depend on the frame: over its bytes, nested, left early, unrolled. */
#include "common.h"

SEC("xdp")
int bounded_loops(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;
	__u32 word = frame_word(ctx), sum = 0, rounds = 0;

	for (__u32 i = 0; i < 64; i++) {
		if ((void *)(data + i + 1) > data_end)
			break;
		sum = sum * 17 + data[i];
	}
	note(0, sum);
	for (__u32 i = 0; i < (word & 15); i++) {
		if (i == 11)
			continue;
		rounds++;
	}
	note(1, rounds);
	for (__u32 i = 0; i < 4; i++)
		for (__u32 j = i; j < 5; j++)
			sum ^= word >> (i * j);
#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += sum << i;
	note(2, sum);
	return XDP_PASS;
}
