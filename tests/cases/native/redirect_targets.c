// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Where frames go: interfaces, keys of maps, all devices of one, and what the last of several calls
 * leaves. "shifted" goes elsewhere by one: a comparison with it must fail. */
#include "common.h"

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
	__type(value, struct bpf_devmap_val);
} links SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} cpus SEC(".maps");

static __always_inline int steer(struct xdp_md *ctx, __u32 shift)
{
	__u32 word = frame_word(ctx), key = (word >> 8) % 6 + shift;

	switch (word % 9) {
	case 0:
		return bpf_redirect(key, 0);
	case 1:
		return bpf_redirect_map(&ports, key, XDP_PASS);
	case 2:
		return bpf_redirect_map(&links, key, XDP_DROP);
	case 3:
		return bpf_redirect_map(&cpus, key & 1, 0);
	case 4:
		return bpf_redirect_map(&ports, key, BPF_F_BROADCAST);
	case 5:
		return bpf_redirect_map(&links, key, BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS);
	case 6: /* the last call counts */
		bpf_redirect_map(&ports, key, 0);
		return bpf_redirect(77 + shift, 0);
	case 7: /* one that finds nothing leaves the key of the one before as an interface */
		bpf_redirect_map(&ports, 2 + shift, 0);
		bpf_redirect_map(&ports, 7, 0);
		return XDP_REDIRECT;
	default:
		return word & 1 << 12 ? XDP_REDIRECT : XDP_TX;
	}
}

SEC("xdp")
int targets(struct xdp_md *ctx)
{
	return steer(ctx, 0);
}

SEC("xdp")
int shifted(struct xdp_md *ctx)
{
	return steer(ctx, 1);
}
