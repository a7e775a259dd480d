// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* __ksym: the addresses of symbols without a type as numbers; weak ones, with and without type,
 * that this kernel has and has not got. */
#include "common.h"

#ifndef bpf_ksym_exists
#define bpf_ksym_exists(symbol) (!!(symbol))
#endif

extern const void bpf_prog_put __ksym;
extern const void no_such_symbol __ksym __weak;
extern const void __per_cpu_start __ksym __weak;
extern const int no_such_variable __ksym __weak;

__u64 seen;

SEC("xdp")
int kernel_symbols(struct xdp_md *ctx)
{
	__u64 address = (unsigned long)&bpf_prog_put;

	note(0, address);
	note(1, address >> 32 == 0xffffffff ? 1 : 2);
	note(2, bpf_ksym_exists(&no_such_symbol));
	note(3, bpf_ksym_exists(&bpf_prog_put));
	note(4, bpf_ksym_exists(&no_such_variable));
	if (&__per_cpu_start)
		note(5, (unsigned long)&__per_cpu_start);
	seen = address + frame_word(ctx);
	return XDP_PASS;
}
