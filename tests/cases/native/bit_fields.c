// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Bit fields that straddle bytes and words, signed ones, unions, packed structures. */
#include "common.h"

struct fields {
	__u32 one : 1, three : 3, eleven : 11, signed_rest : 17;
	__s32 negative : 5, other : 27;
	__u64 long_one : 40, long_two : 24;
} __attribute__((packed));

union view {
	struct fields fields;
	__u8 byte[sizeof(struct fields)];
	__u64 word;
};

union view kept;

SEC("xdp")
int bit_fields(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	union view view = {.fields = {.eleven = word}};

	view.fields.three = word >> 3;
	view.fields.signed_rest = word >> 7;
	view.fields.negative = word >> 9;
	view.fields.other += word;
	view.fields.long_one = (__u64)word << 11;
	view.fields.long_two -= word;
	kept.fields.negative ^= view.fields.negative;
	kept.fields.long_two += view.fields.eleven;
	note(0, view.word);
	note(1, view.fields.negative);
	note(2, view.fields.long_one);
	note(3, view.byte[3] ^ view.byte[9]);
	return kept.fields.one ? XDP_DROP : XDP_PASS;
}
