// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Addresses in initial values: libbpf relocates no global data, so that programs find zeros, or
 * offsets. */
#include "common.h"

__u32 target = 5;
static __u32 hidden[3] = {6, 7, 8};
__u32 *variable = &target;
static __u32 *local = &hidden[2];
__u32 *const volatile constant SEC(".rodata") = &target;
__u32 *const volatile second SEC(".rodata") = &hidden[1];
const char *volatile text = "text";

SEC("xdp")
int data_addresses(struct xdp_md *ctx)
{
	note(0, (unsigned long)*(__u32 *volatile *)&variable);
	note(1, (unsigned long)*(__u32 *volatile *)&local);
	note(2, (unsigned long)constant);
	note(3, (unsigned long)second);
	note(4, (unsigned long)text);
	note(5, target + hidden[frame_word(ctx) & 1]);
	return constant ? XDP_PASS : XDP_DROP;
}
