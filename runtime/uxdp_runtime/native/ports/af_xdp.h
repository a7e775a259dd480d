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

#include "port.h"

#define UXDP_RX_BURST 64u
/* Where a frame of several buffers is put together: 256 of headroom, 64 KiB, and room to grow. */
#define UXDP_WHOLE_BYTES 0x12000u

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

enum uxdp_chunk_owner {
	UXDP_CHUNK_USER = 0, /* free, or its frame is being worked on */
	UXDP_CHUNK_FILL = 1, /* given to the kernel to receive into */
	UXDP_CHUNK_TX = 2,   /* given to the kernel to transmit */
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
	u8 *slots;			      /* UXDP_SLOTS_BYTES */
	struct uxdp_cursor *cursor;	      /* of the injector */
	struct uxdp_transmitted *transmitted; /* NULL: nobody counts */
	u32 ifindex;
	u32 queue_id;
	u32 tx_method;	/* enum uxdp_tx_method */
	u32 busy_poll;	/* never sleep */
	u32 stop;	/* enum uxdp_stop */
	u32 tail_bytes; /* at the end of a chunk that frames may not grow into */
	u32 num_maps;
	u32 sample_in; /* frames until the next sample */
	u32 fill_calm; /* bursts since the kernel was left with few chunks */
	u32 zero;
	struct uxdp_samples *samples; /* NULL: none are taken */
	const struct uxdp_map *maps;  /* the program's, by id: where broadcasts go */
	u8 *whole; /* UXDP_WHOLE_BYTES; NULL: the program takes no frames of several buffers */
	/* uxdp_run of the program that is served. */
	u32 (*run)(struct uxdp_frame *frames, u32 n);
	/* CLOCK_MONOTONIC: when to run it, if need be on no frames; 0: that never matters. */
	const u64 *next_timer_ns;
	/* Whom to tell what hardware knows of frames; NULL: our program on the interface does not
	 * ask. */
	struct uxdp_worker *asking;
};

void uxdp_af_xdp_recover(struct uxdp_queue *queue);
void uxdp_af_xdp_serve(struct uxdp_queue *queue);

#endif
