// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Tables of strings and of structures in .rodata: arrays of characters of one size, strings in
 * functions (.rodata.str), constants in sections of their own, a switch that clang makes a table
 * of. */
#include "common.h"

static const char names[][8] = {"aborted", "drop", "pass", "tx"};
const volatile struct {
	__u16 port;
	char name[6];
} services[4] = {{53, "dns"}, {80, "http"}, {443, "https"}, {22, "ssh"}};
__u64 counters[4] SEC(".data.counters") = {1, 2, 3, 4};
const volatile __u32 primes[4] SEC(".rodata.primes") = {2, 3, 5, 7};
const __u8 folded[16] SEC(".rodata.folded") = {9, 8, 7, 6, 5, 4, 3, 2, 1};
__u32 zeroed[3] SEC(".bss.zeroed");

static __always_inline __u32 sum(const char *text)
{
	__u32 total = 0;

	for (int i = 0; i < 7 && text[i]; i++)
		total = total * 31 + text[i];
	return total;
}

static __noinline __u32 chosen(__u32 kind)
{
	switch (kind & 15) {
	case 0:
		return 17;
	case 1:
		return 4;
	case 2:
		return 77;
	case 3:
		return 1;
	case 4:
		return 1009;
	case 5:
		return 6;
	case 6:
		return 90;
	case 7:
		return 23;
	case 9:
		return 2;
	}
	return 5;
}

SEC("xdp")
int string_tables(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), index = word & 3;
	const char *text = word & 4 ? "to the left" : "to the right";

	note(0, sum(names[index]));
	note(1, services[index].port);
	note(2, services[index].name[word >> 3 & 3]);
	note(3, text[word >> 5 & 7]);
	counters[index] += primes[word >> 7 & 3];
	note(4, counters[index]);
	note(5, chosen(word >> 9));
	note(6, folded[word >> 13 & 15]);
	zeroed[word >> 17 & 1]++;
	note(7, zeroed[0] * 3 + zeroed[1]);
	return XDP_TX;
}
