// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_throw: from subprograms, static and global, two deep, of several types, and from the program;
 * what was done before stays done, and the cookie is the verdict. In a program that a tail call
 * leads to, it ends that. */
#include "common.h"

extern void bpf_throw(__u64 cookie) __ksym;

/* bpf_assert_…() of the kernel's bpf_experimental.h */
#define assert_that(left, operator, constraint, right, cookie)                                     \
	({                                                                                         \
		(void)bpf_throw;                                                                   \
		asm volatile("if %[lhs] " operator" %[rhs] goto +2; r1 = %[value]; call bpf_throw" \
			     :                                                                     \
			     : [lhs] "r"(left), [rhs] constraint(right), [value] "ri"(cookie)      \
			     :);                                                                   \
	})

int after_tail_call(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(void *));
} programs SEC(".maps") = {.values = {(void *)&after_tail_call}};

static __noinline int inner(__u32 word)
{
	note(0, word);
	if ((word & 7) == 3)
		bpf_throw(XDP_TX);
	return word & 3;
}

__noinline int outer(__u32 word)
{
	volatile int result = 3;

	for (int i = 0; i < 3; i++)
		result += inner(word >> 3 * i) + 1;
	if (word % 11 == 5)
		bpf_throw(XDP_DROP);
	note(1, result);
	return result;
}

static __noinline __u64 wide(__u32 word)
{
	if (word % 7 == 2)
		bpf_throw(0x100000002ULL + (word & 1));
	return (__u64)word << 33;
}

SEC("xdp")
int exceptions(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(2, word & 16 ? outer(word) : 0);
	note(3, wide(word));
	if (word % 13 == 5)
		bpf_throw(77);
	assert_that((__u64)word, "!=", "ri", 0, XDP_ABORTED);
	assert_that((__u64)(word & 0xff), "<", "ri", 250, 40);
	if (word & 32)
		bpf_tail_call(ctx, &programs, 0);
	note(4, 5);
	return XDP_PASS;
}

SEC("xdp")
int after_tail_call(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(5, 1);
	note(6, inner(word >> 9));
	return XDP_PASS;
}
