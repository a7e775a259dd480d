// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * movement: does what the first byte of the frame says, so that a runner can be tested: moves its
 * head, its tail or its metadata, or returns a number.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum command {
	COMMAND_RETURN, /* the second byte */
	COMMAND_HEAD,	/* move by the second byte, signed */
	COMMAND_TAIL,
	COMMAND_METADATA, /* and write 0xaa to all of it */
	COMMAND_CONTEXT,  /* write ingress_ifindex and rx_queue_index to bytes 4..12 */
	COMMAND_COUNT,	  /* shrink by one byte, so that every run finds another frame */
};

SEC("xdp")
int movement(struct xdp_md *ctx)
{
	__u8 *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;
	__u8 *metadata;
	int amount;

	if (data + 12 > data_end)
		return XDP_ABORTED;
	amount = (signed char)data[1];
	switch (data[0]) {
	case COMMAND_RETURN:
		return data[1];
	case COMMAND_HEAD:
		return bpf_xdp_adjust_head(ctx, amount) ? XDP_DROP : XDP_TX;
	case COMMAND_TAIL:
		return bpf_xdp_adjust_tail(ctx, amount) ? XDP_DROP : XDP_TX;
	case COMMAND_METADATA:
		if (bpf_xdp_adjust_meta(ctx, -8))
			return XDP_DROP;
		metadata = (void *)(long)ctx->data_meta;
		data = (void *)(long)ctx->data;
		if (metadata + 8 > data)
			return XDP_ABORTED;
		*(__u64 *)metadata = 0xaaaaaaaaaaaaaaaa;
		return XDP_PASS;
	case COMMAND_CONTEXT:
		*(__u32 *)(data + 4) = ctx->ingress_ifindex;
		*(__u32 *)(data + 8) = ctx->rx_queue_index;
		return XDP_PASS;
	case COMMAND_COUNT:
		return bpf_xdp_adjust_tail(ctx, -1) ? XDP_DROP : XDP_TX;
	}
	return XDP_ABORTED;
}

char _license[] SEC("license") = "Dual MIT/GPL";
