// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Dynptrs of a map's value and of global data: made, read, written, copied, filled; offsets and
 * lengths that do not fit, flags that there are not. */
#include "kfuncs.h"

struct value {
	__u8 bytes[100];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct value);
} values SEC(".maps");

__u8 global[64];

SEC("xdp")
int dynptr_memory(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word & 1, offset = word >> 1 & 127;
	struct bpf_dynptr memory, part, refused, frame, data;
	struct value *value = bpf_map_lookup_elem(&values, &key);
	__u8 text[16] = {}, *bytes;

	if (!value)
		return XDP_ABORTED;
	note(0, bpf_dynptr_from_mem(value, sizeof(*value), 0, &memory));
	note(1, bpf_dynptr_from_mem(value->bytes + 10, word & 63, 0, &part));
	note(2, bpf_dynptr_from_mem(value, sizeof(*value), 1ull << 40, &refused));
	note(3, bpf_dynptr_from_mem(global, sizeof(global), 0, &data));
	bpf_dynptr_from_xdp(ctx, 0, &frame);
	note(4, bpf_dynptr_size(&part));
	note(5, bpf_dynptr_write(&memory, offset, &word, sizeof(word), 0));
	note(6, bpf_dynptr_write(&memory, offset, &word, word & 3, 1));
	note(7, bpf_dynptr_write(&refused, 0, &word, 0, 0));
	note(8, bpf_dynptr_write(&frame, offset, &word, sizeof(word), 0));
	note(9, bpf_dynptr_write(&frame, 0xfffffff0, &word, sizeof(word), 0));
	note(10, bpf_dynptr_write(&frame, offset, &word, sizeof(word), 1));
	note(11, bpf_dynptr_read(text, sizeof(text), &memory, offset, 0));
	note(12, text[0] | text[15] << 8);
	note(13, bpf_dynptr_read(text, word >> 9 & 15, &frame, word >> 13 & 63, 0));
	note(14, text[0] | text[15] << 8);
	note(15, bpf_dynptr_read(text, 4, &memory, 0, 8));
	note(16, bpf_dynptr_read(text, 0, &refused, 0, 0));
	bytes = bpf_dynptr_data(&memory, word >> 3 & 127, 8);
	if (bytes)
		bytes[7] ^= word;
	note(17, !!bytes);
	note(18, !!bpf_dynptr_data(&frame, 0, 8));
	note(19, !!bpf_dynptr_data(&refused, 0, 8));
	note(20, bpf_dynptr_copy(&data, word >> 2 & 63, &frame, word >> 8 & 15, word >> 16 & 31));
	note(21, bpf_dynptr_copy(&memory, 3, &memory, 0, 90));
	note(22, bpf_dynptr_copy(&frame, 6, &part, word >> 4 & 15, word >> 8 & 31));
	note(23, bpf_dynptr_copy(&refused, 0, &part, 0, 0));
	note(24, bpf_dynptr_copy(&refused, 0, &part, 0, 1));
	note(25, bpf_dynptr_memset(&part, word >> 20 & 31, word >> 25 & 31, word));
	note(26, bpf_dynptr_memset(&refused, 0, 0, 1));
	note(27, bpf_dynptr_memset(&refused, 0, 1, 1));
	note(28, bpf_dynptr_memset(&frame, word & 127, word >> 7 & 63, 0xff));
	bytes = bpf_dynptr_slice_rdwr(&part, word >> 5 & 31, NULL, 8);
	if (bytes)
		bytes[0] = bytes[7];
	note(29, !!bytes);
	bytes = bpf_dynptr_slice(&data, 5, text, sizeof(text));
	note(30, bytes ? bytes[3] : 1);
	return XDP_TX;
}
