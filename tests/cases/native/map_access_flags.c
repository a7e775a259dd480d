// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Maps that control planes may only read, or only write: to programs they are as all others. */
#include "common.h"

#define MAP(name, kind, flags)                                                                     \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_##kind);                                                 \
		__uint(max_entries, 48);                                                           \
		__uint(map_flags, flags);                                                          \
		__type(key, __u32);                                                                \
		__type(value, __u64);                                                              \
	} name SEC(".maps")

MAP(array, ARRAY, BPF_F_RDONLY);
MAP(cpu_array, PERCPU_ARRAY, BPF_F_RDONLY);
MAP(hash, HASH, BPF_F_RDONLY);
MAP(sparse, HASH, BPF_F_RDONLY | BPF_F_NO_PREALLOC);
MAP(cpu_hash, PERCPU_HASH, BPF_F_RDONLY);
MAP(written, ARRAY, BPF_F_WRONLY);
MAP(written_hash, HASH, BPF_F_WRONLY);

static __always_inline void change(void *map, __u32 which, __u32 word)
{
	__u32 key = word >> 8 & 63;
	__u64 value = word, *found;

	if (word & 3)
		note(which, bpf_map_update_elem(map, &key, &value, word >> 5 & 3));
	else
		note(which, bpf_map_delete_elem(map, &key));
	found = bpf_map_lookup_elem(map, &key);
	if (found)
		note(which, (*found)++);
}

SEC("xdp")
int map_access_flags(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	change(&array, 0, word);
	change(&cpu_array, 1, word);
	change(&hash, 2, word);
	change(&sparse, 3, word);
	change(&cpu_hash, 4, word);
	change(&written, 5, word);
	change(&written_hash, 6, word);
	return word & 1 ? XDP_TX : XDP_PASS;
}
