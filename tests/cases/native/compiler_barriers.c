// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Empty assembly that only keeps the compiler from knowing: barrier() and barrier_var(), of
 * numbers, of the context and of pointers into the frame; volatile accesses. */
#include "common.h"

#define barrier_of(variable) asm volatile("" : "+r"(variable))
#define READ_ONCE(place) (*(volatile typeof(place) *)&(place))

SEC("xdp")
int compiler_barriers(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), index = word & 63;
	struct xdp_md *md = ctx;
	void *data, *data_end;
	__u64 length;

	barrier_of(index);
	note(0, index);
	asm volatile("" ::: "memory");
	note(1, index + word);
	barrier_of(md);
	data = (void *)(long)md->data;
	barrier_of(data);
	data_end = (void *)(long)READ_ONCE(ctx->data_end);
	length = data_end - data;
	barrier_of(length);
	note(2, length);
	if (data + 12 > data_end)
		return XDP_DROP;
	note(3, READ_ONCE(*(__u16 *)data));
	*(volatile __u8 *)(data + 11) = index;
	return XDP_TX;
}
