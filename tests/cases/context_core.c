// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * context_core: xdp_md as the program declares it, in another order and without fields that it does
 * not need.
 *
 * The offsets in the instructions are those of this declaration; loaders put the kernel's in, as
 * CO-RE records say.
 */
typedef unsigned int __u32;
typedef unsigned long long __u64;
#define SEC(name) __attribute__((section(name), used))

struct xdp_md {
	__u32 rx_queue_index;
	__u32 data_end;
	__u32 data;
} __attribute__((preserve_access_index));

struct xdp_md___incoming {
	__u32 ingress_ifindex;
} __attribute__((preserve_access_index));

static __attribute__((noinline)) int queue_of(struct xdp_md *ctx)
{
	return ctx->rx_queue_index;
}

SEC("xdp")
int relocated(struct xdp_md *ctx)
{
	return ctx->data == ctx->data_end ? 1 : 2;
}

SEC("xdp")
int flavored(struct xdp_md *ctx)
{
	return ((struct xdp_md___incoming *)ctx)->ingress_ifindex == queue_of(ctx) ? 1 : 2;
}

char _license[] SEC("license") = "Dual MIT/GPL";
