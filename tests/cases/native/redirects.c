// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_redirect and bpf_redirect_map: verdicts for keys that are there, that are not, and bad flags.
 */
#include "common.h"

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int redirects(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), key = word % 7, flags = (word >> 8) % 5;

	switch ((word >> 4) % 4) {
	case 0:
		return bpf_redirect(word % 9, flags);
	case 1:
		return bpf_redirect_map(&devices, key, flags);
	case 2:
		return bpf_redirect_map(&cpus, key, flags);
	default:
		return bpf_redirect_map(&sockets, key, flags);
	}
}
