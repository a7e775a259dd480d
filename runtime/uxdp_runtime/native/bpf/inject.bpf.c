/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Makes frames of the kernel's out of frames of ours: run by BPF_PROG_TEST_RUN with
 * BPF_F_TEST_XDP_LIVE_FRAMES, repetition i takes slot i, and what happens to the frame then is what
 * the slot says: XDP_PASS into the interface's stack, XDP_TX out of it, XDP_REDIRECT out of
 * another.
 *
 * Under generic XDP a frame that is passed into the stack comes by the interface's own program once
 * more; "bypass" tells that to let it through (redirect.bpf.c).
 *
 * A driver may refuse frames: a veth does whose peer has no NAPI. The kernel tells nobody but its
 * tracepoints, where "transmitted" and "refused" count what became of the frames of one thread.
 *
 * References: net/bpf/test_run.c, xdp_test_run_batch(); struct uxdp_slot, native/slots.h
 */
#include "bpf.h"
#include "../slots.h"

#define MIN_FRAME_BYTES 14

struct slots {
	__u8 bytes[UXDP_SLOTS_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slots);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct uxdp_cursor);
} cursor SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bypass SEC(".maps");

/* Whether the interface's own program is a generic one. */
const volatile __u32 is_generic = 0;

/* Mapped by the thread that injects. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct uxdp_transmitted);
} transmissions SEC(".maps");

static inline __attribute__((always_inline)) int take(struct xdp_md *ctx, struct uxdp_slot *slot)
{
	__u32 len = slot->len;
	long change;

	if (len < MIN_FRAME_BYTES || len > sizeof(slot->data))
		return -1;
	change = (long)len - (long)(ctx->data_end - ctx->data);
	if (change && bpf_xdp_adjust_tail(ctx, change))
		return -1;
	return bpf_xdp_store_bytes(ctx, 0, slot->data, len);
}

SEC("xdp")
int inject(struct xdp_md *ctx)
{
	__u32 zero = 0, at;
	struct uxdp_cursor *next = bpf_map_lookup_elem(&cursor, &zero);
	struct uxdp_transmitted *counts = bpf_map_lookup_elem(&transmissions, &zero);
	struct slots *all = bpf_map_lookup_elem(&slots, &zero);
	struct uxdp_slot *slot;
	__u64 *passing;

	if (!next || !counts || !all)
		return XDP_ABORTED;
	next->taken++;
	at = next->at;
	if (at > UXDP_SLOTS_BYTES - UXDP_SLOT_BYTES) {
		counts->failed++;
		return XDP_ABORTED;
	}
	slot = (struct uxdp_slot *)(all->bytes + at);
	next->at = at + UXDP_SLOT_STEP(slot->len);
	if (take(ctx, slot)) {
		counts->failed++;
		return XDP_ABORTED;
	}
	if (slot->action == XDP_REDIRECT)
		return bpf_redirect(slot->ifindex, 0);
	if (slot->action == XDP_PASS && is_generic) {
		passing = bpf_map_lookup_elem(&bypass, &zero);
		if (passing)
			*passing += 1;
	}
	return slot->action;
}

/* args: from_dev, to_dev, sent, drops, err; include/trace/events/xdp.h, xdp_devmap_xmit */
SEC("raw_tp/xdp_devmap_xmit")
int transmitted(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0;
	struct uxdp_transmitted *counts = bpf_map_lookup_elem(&transmissions, &zero);

	if (counts && (__u32)bpf_get_current_pid_tgid() == counts->thread) {
		counts->taken += (__u32)ctx->args[2];
		counts->refused += (__u32)ctx->args[3];
	}
	return 0;
}

/* What cannot even be queued for a device: it takes no frames of XDP, or is gone. */
SEC("raw_tp/xdp_redirect_err")
int refused(void)
{
	__u32 zero = 0;
	struct uxdp_transmitted *counts = bpf_map_lookup_elem(&transmissions, &zero);

	if (counts && (__u32)bpf_get_current_pid_tgid() == counts->thread)
		counts->refused++;
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
