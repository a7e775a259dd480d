// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_trace_printk and bpf_trace_vprintk: how much was written, and formats that are refused. Lines
 * are short and few, since they go to the one trace of the whole machine. */
#include "common.h"

SEC("xdp")
int trace(struct xdp_md *ctx)
{
	static const char plain[] = "uxdp", number[] = "uxdp %u %d %llx", wrong[] = "uxdp %w",
			  text[] = "uxdp %s", percent[] = "%%", lonely[] = "uxdp %", empty[] = "";
	__u32 word = frame_word(ctx);
	__u64 arguments[3] = {word, -(__u64)word, word * 3ULL};

	if (word % 16)
		return XDP_PASS;
	note(0, bpf_trace_printk(plain, sizeof(plain)));
	note(1, bpf_trace_printk(number, sizeof(number), word, -(int)word, (__u64)word << 20));
	note(2, bpf_trace_printk(wrong, sizeof(wrong), word));
	note(3, bpf_trace_printk(text, sizeof(text), plain));
	note(4, bpf_trace_printk(percent, sizeof(percent)));
	note(5, bpf_trace_printk(lonely, sizeof(lonely), word));
	note(6, bpf_trace_printk(empty, sizeof(empty)));
	note(7, bpf_trace_printk(plain, sizeof(plain) - 1));
	note(8, bpf_printk("%d %d %d %d", word & 7, 1, 2, 3));
	note(9, bpf_trace_vprintk(number, sizeof(number), arguments, sizeof(arguments)));
	note(10, bpf_trace_vprintk(number, sizeof(number), arguments, 12));
	note(11, bpf_trace_vprintk(number, sizeof(number), arguments, 16));
	note(12, bpf_trace_vprintk(plain, sizeof(plain), NULL, 0));
	return XDP_DROP;
}
