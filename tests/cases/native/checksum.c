// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_csum_diff over nothing, one side, both sides, with seeds. */
#include "common.h"

SEC("xdp")
int checksum(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__be32 from[4] = {word, 1, 2, word >> 3}, to[8] = {5, word, 7, 8, word * 3, 1, 2, 3};

	note(0, bpf_csum_diff(from, 16, to, 32, word));
	note(1, bpf_csum_diff(NULL, 0, to, 32, 0));
	note(2, bpf_csum_diff(from, 16, NULL, 0, ~word));
	note(3, bpf_csum_diff(NULL, 0, NULL, 0, word));
	note(4, bpf_csum_diff(from, word & 15, to, 4, 1));
	return XDP_PASS;
}
