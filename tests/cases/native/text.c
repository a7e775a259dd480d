// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_snprintf and bpf_strncmp: widths, signs, strings, addresses, and text that does not fit. */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, char[64]);
} lines SEC(".maps");

SEC("xdp")
int text(struct xdp_md *ctx)
{
	static const char format[] = "%u|%5d|%-8x|%08llX|%c|%pI4|%%";
	__u32 word = frame_word(ctx), zero = 0, address = word;
	char buffer[64] = {}, small[5] = {}, *line = bpf_map_lookup_elem(&lines, &zero);
	__u64 arguments[] = {word,	  word % 2000 - 1000, word >> 12,
			     word * 3ULL, 'a' + word % 26,    (__u64)&address};

	if (!line)
		return XDP_ABORTED;
	note(0, bpf_snprintf(buffer, sizeof(buffer), format, arguments, sizeof(arguments)));
	__builtin_memcpy(line, buffer, sizeof(buffer));
	note(1, bpf_snprintf(small, sizeof(small), format, arguments, sizeof(arguments)));
	note(2, small[3] << 8 | small[4]);
	note(3, bpf_snprintf(NULL, 0, format, arguments, sizeof(arguments)));
	note(4, bpf_strncmp(small, sizeof(small), "1234"));
	note(5, bpf_strncmp(buffer, (word & 7) + 1, "42"));
	note(6, bpf_strncmp("12", 3, "12"));
	return XDP_PASS;
}
