// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Iterators over the bits of one and of many words, of the stack and of a map's value; the words
 * are copied when an iterator is made. No words, too many, addresses of nothing. */
#include "kfuncs.h"

struct bpf_iter_bits {
	__u64 __opaque[2];
} __attribute__((aligned(8)));

extern int bpf_iter_bits_new(struct bpf_iter_bits *it, const __u64 *words, __u32 count) __ksym;
extern int *bpf_iter_bits_next(struct bpf_iter_bits *it) __ksym;
extern void bpf_iter_bits_destroy(struct bpf_iter_bits *it) __ksym;

struct words {
	__u64 words[512];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct words);
} values SEC(".maps");

static __always_inline __u64 bits_of(const __u64 *words, __u32 count)
{
	struct bpf_iter_bits it;
	__u64 sum = 0;
	int *bit;

	sum = bpf_iter_bits_new(&it, words, count);
	while ((bit = bpf_iter_bits_next(&it)))
		sum = sum * 31 + *bit;
	bpf_iter_bits_destroy(&it);
	return sum;
}

SEC("xdp")
int iter_bits(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = 0;
	struct words *value = bpf_map_lookup_elem(&values, &key);
	__u64 small[2] = {word, (__u64)word << 32};
	struct bpf_iter_bits outer, inner;
	int *bit, *other;
	__u64 sum = 0;

	if (!value)
		return XDP_ABORTED;
	value->words[word & 511] = word >> 9 & 0xff;
	note(0, bits_of(small, 1));
	note(1, bits_of(small, 2));
	note(2, bits_of(value->words, word >> 7 & 15));
	note(3, bits_of(value->words, 511));
	note(4, bits_of(value->words, 512));
	note(5, bits_of(value->words, 0));
	note(6, bits_of(NULL, 1));
	note(7, bits_of((const __u64 *)8, 1));
	note(8, bits_of((const __u64 *)8, 2));
	note(9, bits_of(value->words, 0x20000001));
	bpf_iter_bits_new(&outer, small, 2);
	bpf_iter_bits_new(&inner, value->words, 3);
	small[0] = small[1] = ~0ull;
	while ((bit = bpf_iter_bits_next(&outer))) {
		sum = sum * 7 + *bit;
		other = bpf_iter_bits_next(&inner);
		if (other)
			sum += *other;
		value->words[1] ^= 1ull << (*bit & 63);
	}
	bpf_iter_bits_destroy(&inner);
	bpf_iter_bits_destroy(&outer);
	note(10, sum);
	return XDP_PASS;
}
