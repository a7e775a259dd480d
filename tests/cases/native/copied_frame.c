// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_xdp_load_bytes and bpf_xdp_store_bytes of half a kilobyte, by way of the stack and of a map.
 */
#include "common.h"

struct blob {
	__u8 byte[1024];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct blob);
} scratch SEC(".maps");

SEC("xdp")
int copied_frame(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), zero = 0, size = bpf_xdp_get_buff_len(ctx);
	struct blob *blob = bpf_map_lookup_elem(&scratch, &zero);
	__u8 block[128];

	if (!blob)
		return XDP_ABORTED;
	size = (size - 1 & sizeof(blob->byte) - 1) + 1;
	note(0, bpf_xdp_load_bytes(ctx, 0, blob->byte, size));
	note(1, bpf_xdp_store_bytes(ctx, word >> 5 & 31, blob->byte, size));
	if (bpf_xdp_load_bytes(ctx, word & 31, block, sizeof(block)))
		return XDP_PASS;
	note(2, bpf_xdp_store_bytes(ctx, word >> 10 & 31, block, sizeof(block)));
	return XDP_TX;
}
