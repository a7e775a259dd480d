// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What a program returns is taken as it is: all five verdicts, numbers that are none, negative
 * ones. */
#include "common.h"

SEC("xdp")
int verdicts(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);

	if (word & 0x100)
		return word & 7;
	if (word & 0x200)
		return -(int)(word >> 16 & 3);
	return word & 0x400 ? 0x7fffffff : word;
}
