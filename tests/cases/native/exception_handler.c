// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_throw with a handler of the program's own: from the program, from subprograms, and where
 * nothing is thrown; a program beside it has the kernel's. libbpf before 1.3 does not know the
 * handler by its tag and takes it along because the program refers to it, where it never comes. */
#include "common.h"

#define handled_by(name) __attribute__((btf_decl_tag("exception_callback:" #name)))

extern void bpf_throw(__u64 cookie) __ksym;

const volatile __u32 never = 0;
__u64 handled;

__noinline int handler(__u64 cookie)
{
	note(0, cookie);
	handled++;
	return cookie & 3;
}

static __noinline int below(__u32 word)
{
	note(1, word);
	if (word % 7 == 3)
		bpf_throw(0x500000000ULL + word);
	return word & 1 ? XDP_TX : XDP_PASS;
}

__noinline int between(__u32 word)
{
	int result = below(word >> 3);

	if (word % 11 == 5)
		bpf_throw(word >> 5);
	note(2, result);
	return result;
}

SEC("xdp")
handled_by(handler) int exception_handler(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	int result = between(word);

	if (never)
		bpf_loop(1, handler, NULL, 0);
	if (word % 13 == 5)
		bpf_throw(XDP_DROP);
	note(3, result);
	return result;
}

SEC("xdp")
int without_handler(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(4, word);
	return between(word);
}
