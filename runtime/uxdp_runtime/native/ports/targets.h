/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Where a frame with XDP_REDIRECT goes.
 *
 * bpf_redirect and a devmap name an interface, BPF_F_BROADCAST all interfaces of a devmap. A cpumap
 * moves a frame to another CPU's stack; here it goes into the stack, where the kernel's own
 * steering decides on the CPU. There are no sockets of others in this process, so an XSKMAP leads
 * nowhere. The programs that a devmap or cpumap may name have run already (onward.h), but for
 * frames to all interfaces of a devmap: those that want one are left out.
 *
 * References: net/core/filter.c, xdp_do_redirect(); kernel/bpf/devmap.c, dev_map_enqueue_multi()
 */
#ifndef UXDP_PORTS_TARGETS_H
#define UXDP_PORTS_TARGETS_H

#include "port.h"
#include "../maps/hash_control.h"
#include "../maps/redirect.h"

/* The entry's interface; 0: there is no entry, or it wants a program to run. */
UXDP_INLINE u32 device_of(const struct uxdp_map *map, const void *entry)
{
	if (!entry || (map->value_size == 8 && (s32)load_u32((const u8 *)entry + 4) > 0))
		return 0;
	return load_u32(entry);
}

/* The next interface; 0 behind the last. What is changed meanwhile may be missed. */
static u32 next_device(struct uxdp_devmap_walk *walk)
{
	const struct uxdp_map *map = walk->map;
	u32 ifindex;

	while (walk->steps < map->max_entries) {
		if (map->kind == BPF_MAP_TYPE_DEVMAP) {
			ifindex = device_of(map, redirect_lookup(map, walk->steps++));
		} else {
			if (hash_next_key(map, walk->steps ? &walk->key : NULL, &walk->key))
				return 0;
			walk->steps++;
			ifindex = device_of(map, hash_lookup(map, &walk->key));
		}
		if (ifindex)
			return ifindex;
	}
	return 0;
}

/* Find out where a redirected frame goes; false: nowhere. */
UXDP_INLINE bool find_target(const struct uxdp_map *maps, u32 num_maps,
			     const struct uxdp_frame *frame, struct uxdp_target *target)
{
	const struct uxdp_map *map;
	u32 key = frame->redirect_key;

	if (frame->redirect_kind == UXDP_REDIRECT_IFINDEX) {
		target->ifindex = frame->redirect_target;
		return target->ifindex != 0;
	}
	if (frame->redirect_kind != UXDP_REDIRECT_MAP || frame->redirect_map >= num_maps)
		return false;
	map = &maps[frame->redirect_map];
	switch (map->kind) {
	case BPF_MAP_TYPE_DEVMAP:
	case BPF_MAP_TYPE_DEVMAP_HASH:
		if (frame->redirect_flags & BPF_F_BROADCAST) {
			target->broadcast = map;
			if (frame->redirect_flags & BPF_F_EXCLUDE_INGRESS)
				target->excluded = frame->ingress_ifindex;
			return true;
		}
		target->ifindex =
		    device_of(map, map->kind == BPF_MAP_TYPE_DEVMAP ? redirect_lookup(map, key)
								    : hash_lookup(map, &key));
		return target->ifindex != 0;
	case BPF_MAP_TYPE_CPUMAP:
		target->action = XDP_PASS;
		target->cpu = key;
		return frame->redirect_flags & UXDP_REDIRECT_DONE ||
		       !(map->value_size == 8 &&
			 (s32)(*(u64 *)((u64 *)map->store + key) >> 32) > 0);
	default:
		return false;
	}
}

/* For ports that are not compiled with the wheel. */
bool uxdp_find_target(const struct uxdp_map *maps, u32 num_maps, const struct uxdp_frame *frame,
		      struct uxdp_target *target)
{
	return find_target(maps, num_maps, frame, target);
}

u32 uxdp_next_device(struct uxdp_devmap_walk *walk)
{
	return next_device(walk);
}

#endif
