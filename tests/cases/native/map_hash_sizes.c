// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* HASH with keys and values of odd sizes: the bytes behind a key are no part of it. */
#include "common.h"

#define MAP(bytes)                                                                                 \
	struct data_##bytes {                                                                      \
		__u8 byte[bytes];                                                                  \
	};                                                                                         \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__uint(max_entries, 24);                                                           \
		__type(key, struct data_##bytes);                                                  \
		__type(value, struct data_##bytes);                                                \
	} of_##bytes SEC(".maps");                                                                 \
	static __always_inline void use_##bytes(__u8 *memory, __u32 word, __u32 which)             \
	{                                                                                          \
		struct data_##bytes *key = (void *)memory, *found;                                 \
                                                                                                   \
		key->byte[0] = word % 31;                                                          \
		key->byte[bytes - 1] ^= word >> 31;                                                \
		note(which, bpf_map_update_elem(&of_##bytes, key, key, (word >> 8) % 4));          \
		found = bpf_map_lookup_elem(&of_##bytes, key);                                     \
		if (found)                                                                         \
			found->byte[bytes - 1] += 1;                                               \
		else                                                                               \
			note(which + 1, bpf_map_delete_elem(&of_##bytes, key));                    \
		if (word % 5 == 0)                                                                 \
			note(which + 2, bpf_map_delete_elem(&of_##bytes, key));                    \
	}

MAP(1)
MAP(3)
MAP(5)
MAP(7)
MAP(12)
MAP(13)
MAP(64)
MAP(256)

SEC("xdp")
int map_hash_sizes(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u8 memory[256];

	__builtin_memset(memory, word >> 16, sizeof(memory));
	use_1(memory, word, 0);
	use_3(memory, word, 3);
	use_5(memory, word, 6);
	use_7(memory, word, 9);
	use_12(memory, word, 12);
	use_13(memory, word, 15);
	use_64(memory, word, 18);
	use_256(memory, word, 21);
	return XDP_PASS;
}
