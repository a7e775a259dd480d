// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Several maps of the same definition are several maps. */
#include "common.h"

struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u16);
	__type(value, __u16);
};
struct table first SEC(".maps"), second SEC(".maps"), third SEC(".maps");

SEC("xdp")
int map_several(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u16 key = word % 16, value = word >> 16, *found;

	note(0, bpf_map_update_elem(&first, &key, &value, BPF_NOEXIST));
	key = (word >> 4) % 16;
	note(1, bpf_map_update_elem(&second, &key, &value, BPF_NOEXIST));
	found = bpf_map_lookup_elem(&first, &key);
	if (found)
		note(2, bpf_map_update_elem(&third, &key, found, BPF_NOEXIST));
	found = bpf_map_lookup_elem(&third, &key);
	note(3, found ? *found : 9);
	if (word & 0x100)
		note(4, bpf_map_delete_elem(&second, &key));
	if (word & 0x200)
		note(5, bpf_map_delete_elem(&first, &key));
	if (word & 0x400)
		note(6, bpf_map_delete_elem(&third, &key));
	return XDP_PASS;
}
