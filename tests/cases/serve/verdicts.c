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
	default:
		return order->what;
	}
}

char _license[] SEC("license") = "Dual MIT/GPL";
