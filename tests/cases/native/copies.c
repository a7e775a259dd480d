// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* memcpy, memset and memmove, as they are inlined, at odd sizes and places. */
#include "common.h"

__u8 kept[64];

SEC("xdp")
int copies(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data, buffer[61], other[61];

	if ((void *)(data + 60) > data_end)
		return XDP_PASS;
	__builtin_memcpy(buffer, data + 1, 59);
	__builtin_memset(buffer + 59, 0x5a, 2);
	__builtin_memcpy(other, buffer, 61);
	__builtin_memmove(other + 1, other, 15);
	__builtin_memcpy(data + 3, other, 17);
	__builtin_memmove(data + 20, data + 17, 13);
	note(0, buffer[0] ^ buffer[58] ^ other[16] ^ kept[33]);
	__builtin_memcpy(kept, buffer, 61);
	__builtin_memset(data + 34, 0, 7);
	return XDP_TX;
}
