// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_redirect: any flag is refused, the interface is not looked at before the frame leaves. */
#include "common.h"

SEC("xdp")
int redirect_flags(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u64 flags = word & 0x100 ? 0 : 1ULL << (word & 63);

	note(0, bpf_redirect(word, flags));
	return bpf_redirect(1, flags);
}
