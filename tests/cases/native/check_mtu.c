// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_check_mtu: the frame holds the arguments, and gets the MTU and the result; its own length
 * counts. test_kernel_state_agrees.py has the frames, and the devices. */
#include "common.h"

struct request {
	struct ethhdr ethernet;
	__u16 zero;
	__u32 ifindex;
	__u32 mtu_len;
	__s32 len_diff;
	__u64 flags;
	__s64 result;
} __attribute__((packed));

SEC("xdp")
int check_mtu(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	__u32 len;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	len = request->mtu_len;
	request->result =
	    bpf_check_mtu(ctx, request->ifindex, &len, request->len_diff, request->flags);
	request->mtu_len = len;
	return XDP_TX;
}
