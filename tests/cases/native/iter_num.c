// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Loops by an iterator over numbers, as bpf_for makes them: nested, left early, empty, and ranges
 * that are refused. */
#include "kfuncs.h"

#define for_each_number(it, number, start, end)                                                    \
	for (bpf_iter_num_new(&it, start, end); (number = bpf_iter_num_next(&it));)

static __always_inline int count(int start, int end)
{
	struct bpf_iter_num it;
	int *number, sum = 0, error;

	error = bpf_iter_num_new(&it, start, end);
	number = bpf_iter_num_next(&it);
	if (number)
		sum = *number;
	number = bpf_iter_num_next(&it);
	if (number)
		sum = sum * 3 + *number;
	bpf_iter_num_destroy(&it);
	return error ? error : sum;
}

SEC("xdp")
int iter_num(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), sum = 0;
	struct bpf_iter_num outer, inner;
	int *i, *j;

	for_each_number(outer, i, 0, word & 15)
	{
		if (*i == 11)
			break;
		for_each_number(inner, j, -3, (int)(word >> 4 & 7))
		{
			if (*j == 0)
				continue;
			sum = sum * 7 + *i + *j;
		}
		bpf_iter_num_destroy(&inner);
	}
	bpf_iter_num_destroy(&outer);
	note(0, sum);
	note(1, count(word & 3, 2));
	note(2, count(5, 4));
	note(3, count(-(1 << 22), 1 << 22));
	note(4, count(-(1 << 22), (1 << 22) + 1));
	note(5, count(-2147483648, 2147483647));
	note(6, count(2147483646, 2147483647));
	note(7, count(-2147483648, -2147483646));
	note(8, count(2147483647, 2147483647));
	note(9, count(-2147483648, -2147483648));
	return sum & 1 ? XDP_PASS : XDP_DROP;
}
