// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* PERCPU_ARRAY and PERCPU_HASH with values that are no multiple of 8 bytes. */
#include "common.h"

struct value {
	__u32 packets, bytes, last;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct value);
} array SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct value);
} hash SEC(".maps");

SEC("xdp")
int map_percpu(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 11;
	struct value *value = bpf_map_lookup_elem(&array, &key), fresh = {1, word, key};

	if (value) {
		value->packets++;
		value->bytes += ctx->data_end - ctx->data;
		value->last = word;
	}
	note(0, !!value);
	value = bpf_map_lookup_elem(&hash, &key);
	if (value)
		value->packets++;
	else
		note(1, bpf_map_update_elem(&hash, &key, &fresh, BPF_NOEXIST));
	if (word % 7 == 0)
		note(2, bpf_map_delete_elem(&hash, &key));
	note(3, bpf_map_delete_elem(&array, &key));
	note(4, bpf_map_update_elem(&array, &key, &fresh, word % 4));
	return XDP_PASS;
}
