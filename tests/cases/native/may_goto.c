// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Loops that the kernel bounds by time: can_loop and cond_break as bpf_experimental.h has them, by
 * the instruction's name and, from before assemblers knew it, by its bytes. In subprograms that are
 * called in such a loop, too. */
#include "common.h"

#define can_loop                                                                                   \
	({                                                                                         \
		__label__ l_break, l_continue;                                                     \
		bool ret = true;                                                                   \
		asm volatile goto("may_goto %l[l_break]" :: ::l_break);                            \
		goto l_continue;                                                                   \
	l_break:                                                                                   \
		ret = false;                                                                       \
	l_continue:;                                                                               \
		ret;                                                                               \
	})
#define cond_break                                                                                 \
	({                                                                                         \
		__label__ l_break, l_continue;                                                     \
		asm volatile goto("1:.byte 0xe5;			\
			      .byte 0;				\
			      .long ((%l[l_break] - 1b - 8) / 8) & 0xffff;	\
			      .short 0" :: ::l_break);                                             \
		goto l_continue;                                                                   \
	l_break:                                                                                   \
		break;                                                                             \
	l_continue:;                                                                               \
	})

static __noinline __u64 steps(__u64 number)
{
	__u64 count = 0;

	while (number != 1 && can_loop) {
		number = number & 1 ? number * 3 + 1 : number >> 1;
		count++;
	}
	return count;
}

SEC("xdp")
int may_goto(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), index;
	__u64 total = 0;

	for (__u32 i = 0; i < (word & 1023) && can_loop; i++)
		total += i * word;
	note(0, total);
	for (index = 0;; index++) {
		if (index * index > (word & 0xffff))
			break;
		cond_break;
	}
	note(1, index);
	for (__u32 i = 1; i <= (word >> 28) && can_loop; i++)
		total = total * 31 + steps(i + (word & 15));
	note(2, total);
	for (;;) {
		total ^= word;
		cond_break; /* goes on where it breaks to */
		break;
	}
	note(3, total);
	return XDP_PASS;
}
