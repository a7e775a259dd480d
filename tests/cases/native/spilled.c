// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* More live values than registers: the context and pointers into the frame wait on the stack,
 * around calls and in loops. */
#include "common.h"

struct parts {
	struct xdp_md *volatile ctx;
	__u64 volatile a, b, c, d, e, f;
};

static __noinline __u32 length(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

SEC("xdp")
int spilled(struct xdp_md *ctx)
{
	__u64 word = frame_word(ctx), a = word * 3, b = word >> 3, c = ~word, d = word << 5;
	struct parts parts = {ctx, a, b, c, d};
	void *data, *data_end;

	for (__u32 i = 0; i < 8; i++) {
		struct xdp_md *md = parts.ctx;

		data = (void *)(long)md->data;
		data_end = (void *)(long)md->data_end;
		if (data + i + 1 > data_end)
			break;
		parts.e += ((__u8 *)data)[i] * a + b;
		parts.f ^= length(md) + c * i;
		a ^= parts.f;
		b += d;
	}
	note(0, parts.a + parts.b + parts.c + parts.d);
	note(1, parts.e);
	note(2, parts.f ^ a ^ b ^ c ^ d);
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)parts.ctx->data_end;
	if (data + 1 <= data_end)
		*(__u8 *)data = a;
	return XDP_TX;
}
