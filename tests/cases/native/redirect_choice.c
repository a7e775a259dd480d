// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The last redirect counts: of several calls, and of one whose verdict the program ignores. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

SEC("xdp")
int redirect_choice(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	note(0, bpf_redirect(word % 5, 0));
	note(1, bpf_redirect(word % 5, word >> 4 & 3));
	note(2, bpf_redirect_map(&devices, word >> 6 & 7, XDP_DROP));
	note(3, bpf_redirect_map(&devices, word, word >> 9 & 3));
	return word & 1 ? bpf_redirect(1, 1ULL << 40) : XDP_REDIRECT;
}
