// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Global subprograms that are given memory: sized by the pointer's type, with the declaration tags
 * that say what the verifier may take for granted, and with the memory's length. */
#include "common.h"

#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))
#define __arg_nonnull __attribute__((btf_decl_tag("arg:nonnull")))

struct key {
	__u32 source, destination;
	__u16 port;
	__u8 protocol, flags;
};

__attribute__((noinline)) __u32 hash_key(struct key *key __arg_nonnull)
{
	__u32 hash = key->source * 31 + key->destination;

	key->flags |= 1;
	return hash * 31 + key->port + key->protocol;
}

__attribute__((noinline)) int sum_words(__u32 (*words)[4])
{
	int total = 0;

	if (!words)
		return -1;
	for (int i = 0; i < 4; i++)
		total += (*words)[i];
	return total;
}

__attribute__((noinline)) int kind_of(void *context __arg_ctx, __u32 plus)
{
	struct xdp_md *ctx = context;
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;

	return (void *)(data + 14) > data_end ? -1 : data[12] * 256 + data[13] + (int)plus;
}

__attribute__((noinline)) __weak int weakly(struct xdp_md *ctx, __u64 *count __arg_nonnull)
{
	void *data = (void *)(long)ctx->data;

	*count += (void *)(long)ctx->data_end - data;
	return *count;
}

SEC("xdp")
int memory_arguments(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	struct key key = {word, ~word, word >> 3, word >> 7, 0};
	__u32 words[4] = {word, 2, word >> 9, 4};
	__u64 count = word & 15;
	__u32 which = 63;
	__u64 *slot;

	note(0, hash_key(&key));
	note(1, key.flags);
	note(2, sum_words(&words));
	note(3, sum_words(NULL));
	note(4, kind_of(ctx, 5));
	note(5, weakly(ctx, &count));
	slot = bpf_map_lookup_elem(&results, &which);
	if (!slot)
		return XDP_ABORTED;
	note(6, weakly(ctx, slot));
	note(7, count);
	return XDP_PASS;
}
