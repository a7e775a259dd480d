// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Byte swaps of 16, 32 and 64 bits, of what was loaded and of what is stored; parts of words. */
#include "common.h"

union number {
	__u64 wide;
	__u32 narrow[2];
	__u16 half[4];
	__u8 byte[8];
};

SEC("xdp")
int byte_order(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	__u8 *data = (void *)(long)ctx->data;
	union number number;

	if ((void *)(data + 14) > data_end)
		return XDP_DROP;
	__builtin_memcpy(&number, data + 6, 8);
	note(0, bpf_be64_to_cpu(number.wide));
	note(1, bpf_ntohl(number.narrow[1]));
	note(2, bpf_ntohs(number.half[3]) + bpf_htons(number.half[0]));
	note(3, (__s16)bpf_ntohs(number.half[1]) >> 3);
	number.wide = bpf_cpu_to_be64(number.wide + 1);
	number.half[2] = bpf_htons(number.byte[0] << 4);
	number.byte[7] ^= number.byte[1];
	__builtin_memcpy(data, &number, 8);
	*(__u16 *)(data + 8) = bpf_htons(bpf_ntohs(*(__u16 *)(data + 10)) * 3);
	return XDP_TX;
}
