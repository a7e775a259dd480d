/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the queues of every port have: counters that survive the data process, samples, and ways to
 * stop.
 *
 * struct uxdp_queue_state is shared memory: a queue's thread writes it, the control process reads
 * it without a lock, and the next data process goes on with it.
 *
 * Python declares these structs once more, in uxdp_runtime/ports/port_abi.py; a test compares.
 */
#ifndef UXDP_PORTS_PORT_H
#define UXDP_PORTS_PORT_H

#include "../memory.h"
#include "../slots.h"

#define UXDP_LATENCY_BUCKETS 32u /* of powers of two, in ns */

enum uxdp_loss {
	UXDP_LOSS_TX_RING_FULL,	 /* TX: the kernel takes frames slower than they come */
	UXDP_LOSS_INJECT_FAILED, /* PASS, TX, REDIRECT: the injecting call failed */
	UXDP_LOSS_REFUSED, /* TX, REDIRECT: the driver did not take it, as it would not the kernel's
			    */
	UXDP_LOSS_TOO_LONG,	  /* PASS, REDIRECT: longer than UXDP_INJECTED_BYTES */
	UXDP_LOSS_NO_TARGET,	  /* REDIRECT to something that is no interface or is gone */
	UXDP_LOSS_BAD_DESCRIPTOR, /* RX: the kernel named memory that is not this queue's */
	UXDP_LOSS_FRAGMENTED,	  /* RX: a frame of several buffers that cannot be put together */
	UXDP_LOSS_ENDED,	  /* the data process ended while it had them */
	UXDP_LOSS_NO_STACK,	  /* PASS: there is no way into the kernel's stack */
	UXDP_LOSS_NO_BUFFER,	  /* there is no buffer to copy it into */
	UXDP_LOSS_CPU_RING_FULL,  /* REDIRECT by a cpumap: that worker is behind */
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
	u64 broadcast_frames; /* that left, for frames that were redirected to several interfaces */
	u64 inject_calls;
	u64 inject_stalls; /* calls that took longer than UXDP_STALL_NS */
	u64 polls;	   /* how often the thread slept */
	u64 bursts;
	u64 busy_ns;	  /* without sleeping */
	u64 stack_frames; /* that the kernel's stack transmitted through this queue */
	u64 stack_lost;	  /* and that could not leave */
	u64 cpumap_lost;  /* that came from another worker by a cpumap, and could not be passed */
	u64 latency[UXDP_LATENCY_BUCKETS]; /* frames, by how long their burst took: 2^i ns */
	u64 heartbeat_ns;		   /* CLOCK_MONOTONIC of the latest burst or wake-up */
	/*
	 * For a data process that comes after this one: as many entries from here on are written
	 * into the ring. They are the kernel's if the ring's producer has moved on, ours if it has
	 * not.
	 */
	u32 fill_from, fill_pending;
	u32 tx_from, tx_pending;
	u32 num_chunks;
	u32 injection_refused; /* the driver takes no injected frames: TX goes by the ring */
	u32 gone;	       /* the interface is: nothing is to be served any more */
	u32 injection_taken;   /* the driver has taken an injected frame */
	u8 owner[];	       /* enum uxdp_chunk_owner, by chunk of this queue */
};

#define UXDP_SAMPLES 512u /* for each queue; a power of two */
#define UXDP_SAMPLE_BYTES 4096u
#define UXDP_SAMPLE_DATA_BYTES (UXDP_SAMPLE_BYTES - 24u)

/* A copy of a frame as the program left it. */
struct uxdp_sample {
	u64 time_ns; /* CLOCK_REALTIME */
	u32 len;
	u32 captured; /* bytes of it that are here */
	u32 verdict;
	u32 zero;
	u8 data[UXDP_SAMPLE_DATA_BYTES];
};

/* Shared memory: the queue's thread produces, the control process consumes. */
struct uxdp_samples {
	u64 producer; /* both count on, and never wrap */
	u64 consumer;
	u64 missed;
	u64 every; /* how many frames there are to a sample, >= 1 */
	struct uxdp_sample slots[UXDP_SAMPLES];
};

enum uxdp_stop {
	UXDP_GO_ON,
	UXDP_STOP_NOW,	   /* somebody else goes on with what is in the RX ring */
	UXDP_STOP_DRAINED, /* when the RX ring is empty */
};

/* The longest frame that an injecting call takes: a page without headroom, struct skb_shared_info
 * and what the call notes of the frame (struct xdp_page_head, net/bpf/test_run.c). */
#define UXDP_INJECTED_BYTES 3400u

/* Where a redirected frame goes, see targets.h. */
struct uxdp_target {
	u32 action; /* of the slot: XDP_PASS, XDP_TX or XDP_REDIRECT */
	u32 ifindex;
	u32 excluded; /* from a broadcast; 0: none */
	u32 cpu;      /* of a cpumap, if the action is XDP_PASS */
	const struct uxdp_map *broadcast;
};

/* A walk over the interfaces of a devmap; zero but for the map at first. */
struct uxdp_devmap_walk {
	const struct uxdp_map *map;
	u32 steps;
	u32 key;
};

u64 uxdp_samples_written(const struct uxdp_samples *samples);
void uxdp_samples_read(struct uxdp_samples *samples, u64 consumer);

#endif
