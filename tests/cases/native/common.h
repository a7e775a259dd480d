/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the cases share: headers, a map to leave results in, and a hash of a frame's first bytes. */
#ifndef COMMON_H
#define COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} results SEC(".maps");

/* Add to a result: what was returned is then compared through the map. */
static __always_inline void note(__u32 which, __u64 value)
{
	__u64 *slot = bpf_map_lookup_elem(&results, &which);

	if (slot)
		*slot = *slot * 31 + value;
}

/* A number that depends on the frame, on every bit of it alike: MurmurHash3's last step over the
 * first bytes and the length. Every frame has 14 bytes. */
static __always_inline __u32 frame_word(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;
	__u32 word = data_end - (void *)data;

	if ((void *)(data + 14) > data_end)
		return 0;
	word ^= data[5] | data[11] << 8 | data[12] << 16 | data[13] << 24;
	if ((void *)(data + 46) <= data_end)
		word ^= data[25] << 3 | data[37] << 11 | data[41] << 19 | data[45] << 24;
	word = (word ^ word >> 16) * 0x85ebca6b;
	word = (word ^ word >> 13) * 0xc2b2ae35;
	return word ^ word >> 16;
}

char _license[] SEC("license") = "Dual MIT/GPL";

#endif
