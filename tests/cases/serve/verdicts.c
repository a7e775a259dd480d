// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* verdicts: frames that say what is to become of them, in the bytes behind an EtherType of their
 * own; all others are passed. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct order {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__be16 protocol;
	__u8 what;  /* enum xdp_action, or one of the following */
	__u8 key;   /* of a map, or an interface */
	__u8 flags; /* of bpf_redirect_map */
} __attribute__((packed));

enum {
	INVALID = 10,
	TX_MOVED,   /* begins 8 bytes earlier, ends 4 bytes later */
	TX_SHORT,   /* begins 4 bytes later, ends 4 bytes earlier */
	TO_IFINDEX, /* bpf_redirect */
	TO_DEVMAP,  /* and whatever bpf_redirect_map returns, for these, too */
	TO_DEVMAP_HASH,
	TO_CPU,
	TO_SOCKET,
	NOWHERE, /* XDP_REDIRECT, although no helper was asked */
	TO_DEVMAP_PROGRAM,
	TO_DEVMAP_HASH_PROGRAM,
	TO_CPU_PROGRAM,
};

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} hashed_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} cpus SEC(".maps");

/* Where programs run on what is redirected. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} ports_with_program SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} hashed_with_program SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} cpus_with_program SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

static __always_inline int transmit(struct xdp_md *ctx, int head, int tail)
{
	struct order copy, *order = (void *)(long)ctx->data;

	if ((void *)(order + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	copy = *order;
	if (bpf_xdp_adjust_head(ctx, head) || bpf_xdp_adjust_tail(ctx, tail))
		return XDP_ABORTED;
	order = (void *)(long)ctx->data;
	if ((void *)(order + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*order = copy;
	return XDP_TX;
}

SEC("xdp")
int verdicts(struct xdp_md *ctx)
{
	struct order *order = (void *)(long)ctx->data;

	if ((void *)(order + 1) > (void *)(long)ctx->data_end ||
	    order->protocol != bpf_htons(ETH_P_802_EX1))
		return XDP_PASS;
	switch (order->what) {
	case INVALID:
		return 1000;
	case TX_MOVED:
		return transmit(ctx, -8, 4);
	case TX_SHORT:
		return transmit(ctx, 4, -4);
	case TO_IFINDEX:
		return bpf_redirect(order->key, 0);
	case TO_DEVMAP:
		return bpf_redirect_map(&ports, order->key, order->flags);
	case TO_DEVMAP_HASH:
		return bpf_redirect_map(&hashed_ports, order->key, order->flags);
	case TO_CPU:
		return bpf_redirect_map(&cpus, order->key, order->flags);
	case TO_SOCKET:
		return bpf_redirect_map(&sockets, order->key, order->flags);
	case NOWHERE:
		return XDP_REDIRECT;
	case TO_DEVMAP_PROGRAM:
		return bpf_redirect_map(&ports_with_program, order->key, order->flags);
	case TO_DEVMAP_HASH_PROGRAM:
		return bpf_redirect_map(&hashed_with_program, order->key, order->flags);
	case TO_CPU_PROGRAM:
		return bpf_redirect_map(&cpus_with_program, order->key, order->flags);
	default:
		return order->what;
	}
}

/* Writes what it sees into the first address, and does as the payload's first byte says. */
static __always_inline int go_on(struct xdp_md *ctx, __u32 egress)
{
	struct order copy, *order = (void *)(long)ctx->data;
	__u8 *number = (void *)(order + 1);
	int what;

	if ((void *)(number + 4) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	what = number[3] % 6; /* the number of the frame, in network order */
	copy = *order;
	copy.destination[0] = 0x40 | ctx->rx_queue_index;
	copy.destination[1] = egress;
	copy.destination[2] = ctx->ingress_ifindex;
	if (what == 5) {
		if (bpf_xdp_adjust_head(ctx, -4) || bpf_xdp_adjust_tail(ctx, -2))
			return XDP_ABORTED;
		what = XDP_PASS;
	}
	order = (void *)(long)ctx->data;
	if ((void *)(order + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*order = copy;
	return what;
}

SEC("xdp/devmap")
int leaving(struct xdp_md *ctx)
{
	return go_on(ctx, ctx->egress_ifindex);
}

SEC("xdp/cpumap")
int arriving(struct xdp_md *ctx)
{
	int what = go_on(ctx, 0);

	return what == XDP_REDIRECT ? bpf_redirect_map(&ports_with_program, 2, 0) : what;
}

char _license[] SEC("license") = "Dual MIT/GPL";
