// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Calls in inline assembly: bpf_tail_call_static() of libbpf's bpf_helpers.h, whose registers the
 * compiler does not choose, and a helper whose result is used. */
#include "common.h"

int second(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, int(void *));
} programs SEC(".maps") = {.values = {[1] = (void *)&second}};

/* Cilium's, with the map as a constant. */
static __always_inline void tail_call_by_address(const struct xdp_md *ctx, const void *map,
						 const __u32 slot)
{
	asm volatile("r1 = %[ctx]; r2 = %[map] ll; r3 = %[slot]; call 12" ::[ctx] "r"(ctx),
		     [map] "i"(map), [slot] "i"(slot)
		     : "r0", "r1", "r2", "r3", "r4", "r5");
}

SEC("xdp")
int assembly_calls(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx);
	__u64 result;

	asm volatile("r1 = %[ctx]; r2 = 0; call 44; %[result] = r0"
		     : [result] "=r"(result)
		     : [ctx] "r"(ctx)
		     : "r0", "r1", "r2", "r3", "r4", "r5");
	note(0, result);
	if (word & 1)
		bpf_tail_call_static(ctx, &programs, 0);
	if (word & 2)
		tail_call_by_address(ctx, &programs, 1);
	note(1, word);
	bpf_tail_call_static(ctx, &programs, 1);
	return XDP_DROP;
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	note(2, ctx->ingress_ifindex);
	return XDP_TX;
}
