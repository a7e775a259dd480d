// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_fib_lookup: the frame holds the arguments, and gets what the lookup made of them.
 * test_kernel_state_agrees.py has the frames, and the routes. */
#include "common.h"

struct request {
	struct ethhdr ethernet;
	__u16 is_short;
	__u32 flags;
	struct bpf_fib_lookup params;
	__s64 result;
} __attribute__((packed));

SEC("xdp")
int fib_lookup(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct bpf_fib_lookup params;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	params = request->params;
	if (request->is_short)
		request->result = bpf_fib_lookup(ctx, &params, sizeof(params) - 1, request->flags);
	else
		request->result = bpf_fib_lookup(ctx, &params, sizeof(params), request->flags);
	request->params = params;
	return XDP_TX;
}
