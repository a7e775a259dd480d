/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * bpf_redirect and bpf_redirect_map: they note the target in the frame at hand (uxdp_worker.frame,
 * as they are not told the context) and return the verdict for it. Whether the frame goes there
 * depends on what the program returns.
 *
 * References: net/core/filter.c, bpf_xdp_redirect(); include/linux/filter.h,
 * __bpf_xdp_redirect_map()
 */
#include "../maps/hash_find.h"
#include "../maps/redirect.h"

#define REDIRECT_ACTIONS 3ull /* XDP_ABORTED | XDP_DROP | XDP_PASS | XDP_TX */

UXDP_HELPER u64 uxdp_helper_redirect(u64 ifindex, u64 flags)
{
	struct uxdp_frame *frame = uxdp_worker.frame;

	if (unlikely(flags))
		return XDP_ABORTED;
	frame->redirect_kind = UXDP_REDIRECT_IFINDEX;
	frame->redirect_key = ifindex;
	frame->redirect_target = (u32)ifindex;
	return XDP_REDIRECT;
}

/* The entry's first word, which is the interface in devmaps. */
UXDP_INLINE const void *redirect_entry(const struct uxdp_map *map, u64 key)
{
	return map->kind == BPF_MAP_TYPE_DEVMAP_HASH ? hash_lookup(map, &key)
						     : redirect_lookup(map, key);
}

UXDP_HELPER u64 uxdp_helper_redirect_map(const struct uxdp_map *map, u64 key, u64 flags)
{
	struct uxdp_frame *frame = uxdp_worker.frame;
	bool devmap = map->kind == BPF_MAP_TYPE_DEVMAP || map->kind == BPF_MAP_TYPE_DEVMAP_HASH;
	u64 known = REDIRECT_ACTIONS | (devmap ? BPF_F_BROADCAST | BPF_F_EXCLUDE_INGRESS : 0);
	const void *entry;

	if (unlikely(flags & ~known))
		return XDP_ABORTED;
	entry = redirect_entry(map, key);
	if (unlikely(!entry) && !(flags & BPF_F_BROADCAST)) {
		/* A program that returns XDP_REDIRECT all the same means an interface: the one
		 * whose index is what an earlier call gave, be it a map's key (ri->tgt_index). */
		frame->redirect_kind = UXDP_REDIRECT_IFINDEX;
		frame->redirect_target = frame->redirect_key;
		return flags & REDIRECT_ACTIONS;
	}
	frame->redirect_kind = UXDP_REDIRECT_MAP;
	frame->redirect_map = map->id;
	frame->redirect_key = key;
	frame->redirect_flags = flags & BPF_F_BROADCAST ? flags : 0;
	frame->redirect_target = devmap && entry ? load_u32(entry) : (u32)key;
	return XDP_REDIRECT;
}
