// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Who may share a reading of the clock: a run that asks once at most. "times" has what each frame
 * was told, in order.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAX_TIMES 256
#define MAX_SPINS 4096

__u64 times[MAX_TIMES];
__u64 num_times;
__u64 spins; /* rounds of work for each frame */
__u64 sum;

struct guarded {
	struct bpf_spin_lock lock;
	__u32 zero;
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct guarded);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

static __always_inline void note(__u64 now)
{
	times[num_times++ % MAX_TIMES] = now;
}

SEC("xdp")
int once(struct xdp_md *ctx)
{
	for (__u64 i = 0; i < MAX_SPINS && i < spins; i++)
		sum = sum * 31 + i;
	note(bpf_ktime_get_ns());
	return XDP_PASS;
}

SEC("xdp")
int either(struct xdp_md *ctx)
{
	if (ctx->rx_queue_index)
		note(bpf_ktime_get_ns());
	else
		note(bpf_ktime_get_ns() + 1);
	return XDP_PASS;
}

SEC("xdp")
int twice(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	sum += now;
	note(bpf_ktime_get_ns() - now);
	return XDP_PASS;
}

SEC("xdp")
int loops(struct xdp_md *ctx)
{
	for (__u64 i = 0; i < MAX_SPINS && i < spins; i++)
		note(bpf_ktime_get_ns());
	return XDP_PASS;
}

static __noinline __u64 asked(__u64 more)
{
	return bpf_ktime_get_ns() + more;
}

SEC("xdp")
int calls(struct xdp_md *ctx)
{
	note(asked(spins));
	note(asked(sum));
	return XDP_PASS;
}

#if defined(OTHER_CLOCK)
SEC("xdp")
int other_clock(struct xdp_md *ctx)
{
	note(bpf_ktime_get_boot_ns());
	return XDP_PASS;
}
#elif defined(LOCKS)
SEC("xdp")
int locks(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct guarded *shared = bpf_map_lookup_elem(&guarded, &zero);
	__u64 now = bpf_ktime_get_ns();

	if (!shared)
		return XDP_ABORTED;
	bpf_spin_lock(&shared->lock);
	shared->last = now;
	bpf_spin_unlock(&shared->lock);
	return XDP_PASS;
}
#elif defined(TAIL_CALLS)
SEC("xdp")
int tail_calls(struct xdp_md *ctx)
{
	note(bpf_ktime_get_ns());
	bpf_tail_call(ctx, &next, 0);
	return XDP_PASS;
}
#endif

char _license[] SEC("license") = "Dual MIT/GPL";
