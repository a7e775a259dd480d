// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Inline assembly that reads the context and the frame, writes, and jumps inside of itself, in the
 * manner of Cilium's xdp_load_bytes(); atomic additions; pointers in operands. */
#include "common.h"

#define MAX_OFFSET 0xff

static __always_inline int load_bytes(struct xdp_md *ctx, __u64 offset, void *to,
				      const __u64 length)
{
	void *from;
	int result;

	asm volatile("r1 = *(u32 *)(%[ctx] +0)\n\t"
		     "r2 = *(u32 *)(%[ctx] +4)\n\t"
		     "%[offset] &= %[max]\n\t"
		     "r1 += %[offset]\n\t"
		     "%[from] = r1\n\t"
		     "r1 += %[length]\n\t"
		     "if r1 > r2 goto +2\n\t"
		     "%[result] = 0\n\t"
		     "goto +1\n\t"
		     "%[result] = %[error]\n\t"
		     : [result] "=r"(result), [from] "=r"(from)
		     : [ctx] "r"(ctx), [offset] "r"(offset), [length] "ri"(length),
		       [max] "i"(MAX_OFFSET), [error] "i"(-22)
		     : "r1", "r2");
	if (!result)
		__builtin_memcpy(to, from, length);
	return result;
}

/* Cilium's map_array_get_32(): operands that are no outputs are changed, too. */
static __always_inline __u32 element(const __u32 *array, __u32 index, const __u32 limit)
{
	__u32 found = 0;

	asm volatile("%[index] <<= 2\n\t"
		     "if %[index] > %[limit] goto +1\n\t"
		     "%[array] += %[index]\n\t"
		     "%[found] = *(u32 *)(%[array] + 0)\n\t"
		     : [found] "=r"(found)
		     : [limit] "i"(limit), [array] "r"(array), [index] "r"(index));
	return found;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32[8]);
} arrays SEC(".maps");

__u64 total;
__u32 narrow;

SEC("xdp")
int assembly_memory(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), kind, *array;
	__u64 slots[2] = {word, 5}, value;
	__u8 bytes[6] = {};
	void *data, *data_end;

	note(0, load_bytes(ctx, word & 0x3f, bytes, sizeof(bytes)));
	note(1, bytes[0] | bytes[3] << 8 | bytes[5] << 16);
	note(2, load_bytes(ctx, word & 0x1ff, bytes, 4));
	note(3, bytes[1]);
	asm volatile("*(u32 *)(%0 + 8) = %1\n"
		     "*(u8 *)(%0 + 1) = 200\n"
		     "%2 = *(u64 *)(%0 + 0)"
		     : "=&r"(data_end), "=r"(value), "=r"(value)
		     : "0"(slots), "1"(word)
		     : "memory");
	note(4, value + slots[1]);
	asm volatile("lock *(u64 *)(%0 + 0) += %1\n"
		     "lock *(u32 *)(%2 + 0) ^= %3" ::"r"(&total),
		     "r"((__u64)word), "r"(&narrow), "w"(word)
		     : "memory");
	note(5, total + narrow);
	asm volatile("%0 = *(u32 *)(%2 + %3); %1 = *(u32 *)(%2 + %4)"
		     : "=&r"(data), "=&r"(data_end)
		     : "r"(ctx), "i"(offsetof(struct xdp_md, data)),
		       "i"(offsetof(struct xdp_md, data_end)));
	if (data + 14 > data_end)
		return XDP_DROP;
	asm volatile("%0 = 0\n"
		     "if %1 > 0x7fffffff goto 1f\n"
		     "%0 = 1\n"
		     "if %1 & 1 goto l_end_%=\n"
		     "%0 = 2\n"
		     "goto l_end_%=\n"
		     "1: %0 = *(u16 *)(%2 + 12)\n"
		     "l_end_%=:"
		     : "=&r"(kind)
		     : "r"(word), "r"(data));
	note(6, kind);
	*(__u8 *)data = kind;
	kind = 0;
	array = bpf_map_lookup_elem(&arrays, &kind);
	if (!array)
		return XDP_ABORTED;
	array[word & 7] += word;
	note(7, element(array, word >> 4 & 7, 7 << 2));
	return XDP_TX;
}
