// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* XSKMAP: redirects to slots without a socket fall back; lookups find none. Slots with a socket are
 * in test_sockets_agree.py. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int map_xskmap(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 6;
	struct bpf_xdp_sock *socket = bpf_map_lookup_elem(&sockets, &key);

	note(0, socket ? socket->queue_id : 77);
	return bpf_redirect_map(&sockets, key, word >> 8 & 15);
}
