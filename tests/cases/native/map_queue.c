// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Queues and stacks: pushed, peeked and popped, empty and full, with every flag. */
#include "common.h"

struct item {
	__u32 word;
	__u8 bytes[9];
};

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 5);
	__type(value, struct item);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 5);
	__type(value, struct item);
} stack SEC(".maps");

static __always_inline void use(void *map, __u32 which, __u32 word)
{
	struct item item = {.word = word, .bytes = {word >> 3, word >> 5, [8] = word >> 7}};

	switch (word >> 16 & 7) {
	case 0:
	case 1:
		note(which, bpf_map_pop_elem(map, &item));
		note(which + 1, item.word ^ item.bytes[8]);
		break;
	case 2:
		note(which + 2, bpf_map_peek_elem(map, &item));
		note(which + 3, item.word ^ item.bytes[1]);
		break;
	case 3:
		note(which + 4, bpf_map_push_elem(map, &item, word >> 19 & 3));
		break;
	default:
		note(which + 5,
		     bpf_map_push_elem(map, &item, word & 0x80000 ? BPF_EXIST : BPF_ANY));
	}
}

SEC("xdp")
int map_queue(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	use(&queue, 0, word);
	use(&stack, 8, word * 0x9e3779b1);
	return XDP_PASS;
}
