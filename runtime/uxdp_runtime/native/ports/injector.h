/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Slots, of which native/bpf/inject.bpf.c makes frames of the kernel's in one system call. Whoever
 * includes this has clock_ns() and __errno_location().
 */
#ifndef UXDP_PORTS_INJECTOR_H
#define UXDP_PORTS_INJECTOR_H

#include "port.h"
#include "../test_run.h"

#define UXDP_STALL_NS 1000000ull /* a call is ~20 us; 1 ms: somebody waits for RCU */
#define UXDP_INJECTED_BATCH 64u	 /* frames that the kernel makes at once */

_Static_assert(sizeof(struct uxdp_slot) == UXDP_SLOT_BYTES, "a slot without padding");

struct injector {
	s32 fd;
	u32 ifindex; /* the interface that the frames seem to come from */
	u32 queue_id;
	u8 *slots; /* UXDP_SLOTS_BYTES */
	struct uxdp_cursor *cursor;
	struct uxdp_queue_state *state;
};

/* The slots that are filled. */
struct filled {
	u32 n;
	u32 bytes;
};

UXDP_INLINE bool has_room(const struct filled *filled)
{
	return filled->n < UXDP_PENDING && filled->bytes <= UXDP_SLOTS_BYTES - UXDP_SLOT_BYTES;
}

/* The next slot, which there must be room for, and which is filled from then on. */
UXDP_INLINE struct uxdp_slot *take_slot(u8 *slots, struct filled *filled, u32 len)
{
	struct uxdp_slot *slot = (struct uxdp_slot *)(slots + filled->bytes);

	filled->n++;
	filled->bytes += UXDP_SLOT_STEP(len);
	slot->len = len;
	return slot;
}

/* Run the injector on the first n slots; how many it took. */
static u32 run_injector(const struct injector *injector, u32 n)
{
	const struct uxdp_slot *first = (const struct uxdp_slot *)injector->slots;
	/* struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress */
	u32 context[6] = {0, first->len, 0, injector->ifindex, injector->queue_id, 0};
	struct test_run attr = {
	    .prog_fd = injector->fd,
	    .data_size_in = first->len,
	    .data_in = (u64)first->data,
	    .ctx_size_in = sizeof(context),
	    .ctx_in = (u64)context,
	    .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
	    .batch_size = UXDP_INJECTED_BATCH,
	};
	u64 start = clock_ns(CLOCK_MONOTONIC);

	injector->cursor->at = 0;
	__atomic_store_n(&injector->cursor->taken, 0, __ATOMIC_RELEASE);
	for (u32 tries = 0; tries < 16; tries++) {
		u32 done = __atomic_load_n(&injector->cursor->taken, __ATOMIC_ACQUIRE);
		long result;

		if (done >= n)
			break;
		attr.repeat = n - done;
		result = syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr));
		injector->state->inject_calls++;
		if (result < 0 && *__errno_location() != EINTR && *__errno_location() != EAGAIN)
			break;
	}
	if (clock_ns(CLOCK_MONOTONIC) - start > UXDP_STALL_NS)
		injector->state->inject_stalls++;
	return __atomic_load_n(&injector->cursor->taken, __ATOMIC_ACQUIRE);
}

#endif
