/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The program on a served interface: each frame goes to the AF_XDP socket of its RX queue. Where
 * there is no socket, or the data process is away, it goes where "fallback" says: into the stack,
 * nowhere, or into the network function's own verified program.
 *
 * Under generic XDP, what the injector passes into the stack comes by here again; "bypass" counts
 * how many of the next frames on this CPU these are.
 */
#include "bpf.h"

#define MAX_QUEUES 1024

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct settings {
	__u32 away;	/* nobody reads the sockets now */
	__u32 fallback; /* XDP_PASS, XDP_DROP, or XDP_ABORTED for the program in "program" */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} program SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bypass SEC(".maps");

SEC("xdp")
int uxdp_redirect(struct xdp_md *ctx)
{
	__u32 zero = 0, queue = ctx->rx_queue_index;
	struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	__u64 *passing = bpf_map_lookup_elem(&bypass, &zero);

	if (!s || !passing)
		return XDP_ABORTED;
	if (*passing) {
		*passing -= 1;
		return XDP_PASS;
	}
	if (!s->away && bpf_redirect_map(&sockets, queue, XDP_PASS) == XDP_REDIRECT) {
#ifdef BEFORE_REDIRECT
		BEFORE_REDIRECT(ctx);
#endif
		return XDP_REDIRECT;
	}
	if (s->fallback == XDP_ABORTED)
		bpf_tail_call(ctx, &program, 0);
	return s->fallback == XDP_DROP ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
