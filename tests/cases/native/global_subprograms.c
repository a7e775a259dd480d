// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Global subprograms, which are verified on their own: with numbers, with pointers that may be
 * NULL, with the context. */
#include "common.h"

struct totals {
	__u64 frames, bytes;
};

__attribute__((noinline)) int add(struct totals *totals, __u32 bytes)
{
	if (!totals)
		return -1;
	totals->frames++;
	totals->bytes += bytes;
	return totals->frames & 7;
}

__attribute__((noinline)) int mix(__u64 one, __u32 other, __s16 small)
{
	return one * 31 + other * 7 + small;
}

__attribute__((noinline)) int first_byte(struct xdp_md *ctx, int offset)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;

	offset &= 63;
	if ((void *)(data + offset + 1) > data_end)
		return -1;
	data[offset]++;
	return mix(data[offset], offset, -3);
}

SEC("xdp")
int global_subprograms(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct totals totals = {.bytes = word};

	note(0, add(&totals, ctx->data_end - ctx->data));
	note(1, add(&totals, 3));
	note(2, add(NULL, 3));
	note(3, totals.bytes);
	note(4, mix((__u64)word << 20, word, word));
	note(5, first_byte(ctx, word >> 8));
	return XDP_TX;
}
