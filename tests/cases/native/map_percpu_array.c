// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* PERCPU_ARRAY: bounds, flags, values of 1, 5 and 64 bytes. */
#include "common.h"

#define MAP(bytes)                                                                                 \
	struct value_##bytes {                                                                     \
		__u8 byte[bytes];                                                                  \
	};                                                                                         \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__uint(max_entries, 6);                                                            \
		__type(key, __u32);                                                                \
		__type(value, struct value_##bytes);                                               \
	} of_##bytes SEC(".maps");                                                                 \
	static __always_inline void use_##bytes(__u32 word, __u32 which)                           \
	{                                                                                          \
		struct value_##bytes value = {{word}}, *found;                                     \
		__u32 key = word % 8;                                                              \
                                                                                                   \
		note(which, bpf_map_update_elem(&of_##bytes, &key, &value, (word >> 4) % 6));      \
		note(which + 1, bpf_map_update_elem(&of_##bytes, &key, &value, BPF_F_LOCK));       \
		note(which + 2, bpf_map_delete_elem(&of_##bytes, &key));                           \
		key = (word >> 8) % 8;                                                             \
		found = bpf_map_lookup_elem(&of_##bytes, &key);                                    \
		if (found)                                                                         \
			found->byte[bytes - 1] += word;                                            \
		note(which + 3, !found);                                                           \
	}

MAP(1)
MAP(5)
MAP(64)

SEC("xdp")
int map_percpu_array(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), beyond = ~0;

	use_1(word, 0);
	use_5(word, 4);
	use_64(word, 8);
	note(12, !bpf_map_lookup_elem(&of_5, &beyond));
	return XDP_PASS;
}
