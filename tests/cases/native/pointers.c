// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Pointers that are compared, subtracted, spilled to the stack and passed through structures. */
#include "common.h"

struct cursor {
	void *at, *end;
	struct xdp_md *ctx;
	__u64 *slot;
};

static __noinline int advance(struct cursor *cursor, __u32 by)
{
	by &= 31;
	if (cursor->at + by + 1 > cursor->end)
		return -1;
	cursor->at += by;
	return *(__u8 *)cursor->at;
}

SEC("xdp")
int pointers(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word & 1 ? 3 : 99;
	struct cursor cursor = {(void *)(long)ctx->data, (void *)(long)ctx->data_end, ctx,
				bpf_map_lookup_elem(&results, &key)};

	note(0, advance(&cursor, word));
	note(1, advance(&cursor, word >> 5));
	note(2, advance(&cursor, word >> 10));
	note(4, cursor.at - (void *)(long)cursor.ctx->data);
	note(5, cursor.at < cursor.end);
	if (cursor.slot)
		*cursor.slot += word;
	return cursor.slot ? XDP_PASS : XDP_DROP;
}
