/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Programs in the values of devmaps and cpumaps, which run on frames that are redirected there.
 *
 * In the kernel they run when the frame leaves for the device, or arrives at the other CPU. Here
 * they run at once, on the same worker: the verdict of a frame is that of the last program.
 * XDP_PASS lets it go on to where it was redirected, as that program left it. A devmap's program
 * sees the interface that it leaves by; a cpumap's may redirect it once more. Neither sees the
 * queue that it came from.
 *
 * A frame for all interfaces of a devmap has no copies here to run programs on: ports leave out
 * interfaces that want one.
 *
 * References: kernel/bpf/devmap.c, dev_map_bpf_prog_run(); kernel/bpf/cpumap.c,
 * cpu_map_bpf_prog_run_xdp()
 */
#ifndef UXDP_ONWARD_H
#define UXDP_ONWARD_H

#include "maps/hash_find.h"
#include "maps/nested.h"
#include "maps/redirect.h"

/* What the kernel does without end: from one cpumap's program to another's. */
#define UXDP_MAX_ONWARD 8u

/* One step; whether the frame was redirected once more. */
UXDP_INLINE bool run_onward(struct uxdp_frame *frame)
{
	u32 id = frame->redirect_map, key = frame->redirect_key, queue = frame->rx_queue_index;
	const struct uxdp_map *map = uxdp_declared[id];
	bool hashed = map->kind == BPF_MAP_TYPE_DEVMAP_HASH, cpu = map->kind == BPF_MAP_TYPE_CPUMAP;
	const u8 *entry;
	u32 number, ifindex;

	if (map->value_size != 8)
		return false;
	entry = hashed ? hash_lookup(map, &key) : (const u8 *)redirect_lookup(map, key);
	if (!entry)
		return false;
	ifindex = load_u32(entry);
	number = load_u32(entry + 4);
	if (!number)
		return false;
	frame->redirect_kind = UXDP_REDIRECT_NONE;
	frame->redirect_flags = 0;
	frame->rx_queue_index = 0;
	frame->egress_ifindex = cpu ? 0 : ifindex;
	frame->tail_calls = UXDP_TAIL_CALL_LIMIT;
	frame->verdict = uxdp_onward(frame, number);
	frame->rx_queue_index = queue;
	frame->egress_ifindex = 0;
	if (frame->verdict == XDP_REDIRECT && cpu)
		return true;
	if (frame->verdict == XDP_PASS) {
		frame->verdict = XDP_REDIRECT;
		frame->redirect_kind = cpu ? UXDP_REDIRECT_MAP : UXDP_REDIRECT_IFINDEX;
		frame->redirect_map = id;
		frame->redirect_key = key;
		frame->redirect_flags = UXDP_REDIRECT_DONE;
		frame->redirect_target = cpu ? key : ifindex;
	} else if (frame->verdict != XDP_DROP) {
		frame->verdict = XDP_ABORTED;
	}
	return false;
}

UXDP_COLD void go_onward(struct uxdp_frame *frame)
{
	u32 steps = 0;

	while (frame->verdict == XDP_REDIRECT && frame->redirect_kind == UXDP_REDIRECT_MAP &&
	       !(frame->redirect_flags & BPF_F_BROADCAST) && run_onward(frame))
		if (++steps == UXDP_MAX_ONWARD)
			frame->verdict = XDP_ABORTED;
}

#endif
