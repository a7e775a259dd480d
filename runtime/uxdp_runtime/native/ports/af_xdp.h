/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The AF_XDP port: one thread serves one RX queue of one interface.
 *
 * Whose memory is whose:
 * - the UMEM is one area for all queues of a NUMA node; each queue owns a range of its chunks, and
 *   has fill, completion, RX and TX rings of its own;
 * - struct uxdp_queue and everything it points to but rings, UMEM and slots is the data process's;
 * - struct uxdp_queue_state is shared memory that survives the data process: counters, which the
 *   control process reads without a lock, and who owns which chunk, from which a new data process
 *   goes on where the last one stopped.
 *
 * Python declares these structs once more, in uxdp_runtime/ports/af_xdp_abi.py; a test compares.
 *
 * References: Documentation/networking/af_xdp.rst; include/uapi/linux/if_xdp.h
 */
#ifndef UXDP_PORTS_AF_XDP_H
#define UXDP_PORTS_AF_XDP_H

#include "../memory.h"

#define UXDP_RX_BURST 64u
#define UXDP_PENDING 256u /* frames that wait to be transmitted or passed, at most */
/* An odd number of cache lines, so that slots do not all fall into the same lines of a cache. */
#define UXDP_SLOT_BYTES 3520u
#define UXDP_SLOT_DATA_BYTES (UXDP_SLOT_BYTES - 16u)
#define UXDP_LATENCY_BUCKETS 32u /* of powers of two, in ns */

/* A ring shared with the kernel; the pointers lead into its mapping. */
struct uxdp_ring {
	u32 *producer;
	u32 *consumer;
	u32 *flags;
	void *descriptors; /* struct xdp_desc, or u64 in fill and completion rings */
	u32 mask;
	u32 cached_producer;
	u32 cached_consumer;
	u32 zero;
};

/* include/uapi/linux/if_xdp.h */
struct xdp_desc {
	u64 addr;
	u32 len;
	u32 options;
};

/* What the injector program makes a frame of: native/bpf/inject.bpf.c. */
struct uxdp_slot {
	u32 len;
	u32 action;  /* XDP_PASS, XDP_TX or XDP_REDIRECT */
	u32 ifindex; /* of XDP_REDIRECT */
	u32 zero;
	u8 data[UXDP_SLOT_DATA_BYTES];
};

/* What became of injected frames that leave by an interface: native/bpf/inject.bpf.c. */
struct uxdp_transmitted {
	u32 thread; /* whose frames are counted: gettid() */
	u32 zero;
	u64 taken;
	u64 refused;
};

enum uxdp_chunk_owner {
	UXDP_CHUNK_USER = 0, /* free, or its frame is being worked on */
	UXDP_CHUNK_FILL = 1, /* given to the kernel to receive into */
	UXDP_CHUNK_TX = 2,   /* given to the kernel to transmit */
};

enum uxdp_loss {
	UXDP_LOSS_TX_RING_FULL,	 /* TX: the kernel takes frames slower than they come */
	UXDP_LOSS_INJECT_FAILED, /* PASS, TX, REDIRECT: the injecting call failed */
	UXDP_LOSS_REFUSED, /* TX, REDIRECT: the driver did not take it, as it would not the kernel's
			    */
	UXDP_LOSS_TOO_LONG,	  /* PASS, REDIRECT: longer than a slot */
	UXDP_LOSS_NO_TARGET,	  /* REDIRECT to something that is no interface or is gone */
	UXDP_LOSS_BAD_DESCRIPTOR, /* RX: the kernel named memory that is not this queue's */
	UXDP_LOSS_FRAGMENTED,	  /* RX: a frame of several buffers, for a program without frags */
	UXDP_LOSSES,
};

struct uxdp_queue_state {
	/* Each received frame is counted in exactly one of verdict_frames and lost. */
	u64 rx_frames;
	u64 rx_bytes;
	u64 verdict_frames[5]; /* enum xdp_action; others count as XDP_ABORTED, as in the kernel */
	u64 verdict_bytes[5];  /* as received */
	u64 lost[UXDP_LOSSES];
	u64 tx_by_ring;
	u64 tx_by_injection;
	u64 inject_calls;
	u64 inject_stalls; /* calls that took longer than UXDP_STALL_NS */
	u64 polls;	   /* how often the thread slept */
	u64 bursts;
	u64 busy_ns;			   /* without sleeping */
	u64 latency[UXDP_LATENCY_BUCKETS]; /* frames, by how long their burst took: 2^i ns */
	u64 heartbeat_ns;		   /* CLOCK_MONOTONIC of the latest burst or wake-up */
	/* For a data process that comes after this one. */
	u32 fill_pending; /* entries behind the fill ring's producer that are about to be published
			   */
	u32 tx_pending;
	u32 num_chunks;
	u32 injection_refused; /* the driver takes no injected frames: TX goes by the ring */
	u8 owner[];	       /* enum uxdp_chunk_owner, by chunk of this queue */
};

enum uxdp_tx_method {
	UXDP_TX_AUTO,
	UXDP_TX_RING,
	UXDP_TX_LIVE,
};

struct uxdp_queue {
	struct uxdp_ring rx, tx, fill, completion;
	struct uxdp_queue_state *state;
	u8 *umem;	 /* the whole area, which descriptors' addresses count from */
	u64 first_chunk; /* this queue's range begins there: an offset in bytes */
	u64 chunk_bytes;
	u64 *free; /* addresses of free chunks; room for num_chunks */
	u32 num_free;
	s32 fd;				      /* the AF_XDP socket */
	s32 wake_fd;			      /* readable when stop was set */
	s32 inject_fd;			      /* the injector program; -1: there is none */
	struct uxdp_slot *slots;	      /* UXDP_PENDING of them */
	u32 *cursor;			      /* which slot the injector takes next */
	struct uxdp_transmitted *transmitted; /* NULL: nobody counts */
	u32 ifindex;
	u32 queue_id;
	u32 tx_method; /* enum uxdp_tx_method */
	u32 busy_poll; /* never sleep */
	u32 stop;
	u32 tail_bytes; /* at the end of a chunk that frames may not grow into */
	/* uxdp_run of the program that is served. */
	void (*run)(struct uxdp_frame *frames, u32 n);
};

void uxdp_af_xdp_recover(struct uxdp_queue *queue);
void uxdp_af_xdp_serve(struct uxdp_queue *queue);

#endif
