// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Several sockets are held at once, and given back in another order than they were found in; a
 * lookup that comes later does not disturb one that is held. */
#include "common.h"

struct request {
	struct ethhdr ethernet;
	__u16 zero;
	__be32 addresses[2];
	__be16 ports[2];
	__u32 seen[8];
} __attribute__((packed));

static __always_inline struct bpf_sock *listener(struct xdp_md *ctx, struct request *request,
						 __u32 address, __u32 port)
{
	struct bpf_sock_tuple tuple = {};

	tuple.ipv4.daddr = request->addresses[address];
	tuple.ipv4.dport = request->ports[port];
	return bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

SEC("xdp")
int socket_several(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct bpf_sock *one, *other, *again;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	one = listener(ctx, request, 0, 0);
	other = listener(ctx, request, 1, 1);
	if (one)
		request->seen[0] = one->src_port;
	if (other)
		request->seen[1] = other->src_port;
	again = listener(ctx, request, 0, 1);
	if (again) {
		request->seen[2] = again->src_port;
		request->seen[3] = again->src_ip4;
	}
	if (one) {
		request->seen[4] = one->src_ip4;
		bpf_sk_release(one);
	}
	one = listener(ctx, request, 1, 0);
	if (again)
		bpf_sk_release(again);
	if (other) {
		request->seen[5] = other->src_ip4;
		bpf_sk_release(other);
	}
	if (one) {
		request->seen[6] = one->src_port;
		request->seen[7] = one->state;
		bpf_sk_release(one);
	}
	return XDP_TX;
}
