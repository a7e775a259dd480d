/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The DPDK port: one thread serves one RX queue of one DPDK port.
 *
 * This is compiled on the user's machine, when DPDK is first served with, against the DPDK that is
 * installed there: rte_eth_rx_burst() and the like are inline functions of its headers. The network
 * function's own module is called once for each burst: on the mbufs themselves, if it needs but
 * frames and maps (mbufs.h), else on descriptors of the frames.
 *
 * Whose memory is whose:
 * - EAL, its ports and mempools belong to the data process, and end with it;
 * - an mbuf of an RX burst is ours until it is given to a TX burst, to a worker's ring, or freed;
 *   each way out of dpdk_disposal.h does one of these, once, and counts the frame;
 * - struct uxdp_queue_state and struct uxdp_dpdk_state are shared memory that survives the data
 *   process; the control process reads them without a lock.
 *
 * An mbuf of ours:
 *
 *   struct rte_mbuf | private area, 128 | headroom, 128 | frame | tailroom
 *                   ^ hard_start        ^ buf_addr      ^ data
 *
 * Drivers put frames behind RTE_PKTMBUF_HEADROOM, which is fixed to 128 when DPDK is built; XDP
 * programs have 256. So the private area in front of the buffer is headroom, too, and a frame that
 * begins there when the program is done with it is moved (finish_frame).
 *
 * Python declares these structs once more, in uxdp_runtime/ports/dpdk_abi.py; a test compares.
 *
 * References: https://doc.dpdk.org/guides-22.11/prog_guide/mbuf_lib.html, poll_mode_drv.html
 */
#ifndef UXDP_PORTS_DPDK_H
#define UXDP_PORTS_DPDK_H

#include "port.h"

#include "../mbufs.h"

#define UXDP_DPDK_BURST UXDP_MBUFS
#define UXDP_DPDK_PORTS 32u
#define UXDP_DPDK_CPU_RING 1024u /* frames that wait for a worker, by cpumaps; a power of two */
#define UXDP_DPDK_NAME_BYTES 64u
#define UXDP_DPDK_XSTATS 256u
#define UXDP_DPDK_ERROR_BYTES 256u
/* Where a frame of several mbufs is put together: headroom, 64 KiB, and nothing to grow into. */
#define UXDP_DPDK_WHOLE_BYTES 0x12000u

/* What a driver counts beyond the common statistics, by its own name. */
struct uxdp_dpdk_xstat {
	char name[UXDP_DPDK_NAME_BYTES];
	u64 value;
};

/* What is seen of a port now and then; shared memory. */
struct uxdp_dpdk_state {
	u32 link_up;
	u32 link_mbps; /* UINT32_MAX: not known */
	u32 link_full_duplex;
	u32 num_xstats;
	u64 observed;	/* how often this was written */
	u64 closed;	/* the data process has given the port up, mbufs_free is final */
	u64 mbufs;	/* of the pool */
	u64 mbufs_free; /* after uxdp_dpdk_close: those that came back */
	u64 rx_frames;	/* struct rte_eth_stats, up to rx_no_mbuf */
	u64 tx_frames;
	u64 rx_bytes;
	u64 tx_bytes;
	u64 rx_missed; /* the queues were full */
	u64 rx_errors;
	u64 tx_errors;
	u64 rx_no_mbuf; /* the pool was empty */
	struct uxdp_dpdk_xstat xstats[UXDP_DPDK_XSTATS];
};

struct uxdp_dpdk_port {
	char name[UXDP_DPDK_NAME_BYTES]; /* what EAL calls it: a PCI address, or a vdev's name */
	u32 num_queues;			 /* of RX, and as many of TX */
	u32 num_mbufs;
	u32 chunk_bytes; /* of a buffer with its headroom */
	u32 ifindex;	 /* what programs call it */
	u32 multi_buffer;
	u32 rx_interrupts;
	u32 is_alone; /* it transmits no other port's mbufs, and no other worker uses its queues */
	u32 zero;
	struct uxdp_dpdk_state *state;
	/* Filled in by uxdp_dpdk_open: */
	u32 port_id;
	u32 kernel_ifindex; /* of the kernel's interface on a bifurcated driver; 0: there is none.
			       What sysfs says, or else the driver */
	s32 socket;
	u32 num_descriptors; /* of an RX queue */
	u32 can_chain;	     /* it transmits frames of several mbufs */
	u32 mtu;
	u32 is_open;
	u32 is_started;
	u8 mac[8];
	char driver[UXDP_DPDK_NAME_BYTES];
	char error[UXDP_DPDK_ERROR_BYTES]; /* why it could not be opened */
	void *pool;
	void *tx_locks;	  /* of the TX queues, rte_spinlock_t */
	u64 timestamp_at; /* the dynamic field of mbufs, and its flag; 0: no timestamps */
	u64 timestamp_flag;
};

enum uxdp_power {
	UXDP_POWER_POLL,      /* never sleep */
	UXDP_POWER_PAUSE,     /* sleep a little after some turns without frames */
	UXDP_POWER_INTERRUPT, /* sleep until the device says that there are frames */
};

struct uxdp_dpdk_queue {
	struct uxdp_queue_state *state;
	struct uxdp_samples *samples; /* NULL: none are taken */
	const struct uxdp_map *maps;
	struct uxdp_worker *worker;
	struct uxdp_dpdk_port *ports; /* all of them */
	void **rings;		      /* struct rte_ring, by worker; NULL: no cpumap leads there */
	u8 *whole; /* UXDP_DPDK_WHOLE_BYTES; NULL: no frames of several mbufs are taken */
	/* uxdp_run of the program that is served. */
	u32 (*run)(struct uxdp_frame *frames, u32 n);
	/* uxdp_run_mbufs of it; NULL: it does not take mbufs. */
	u32 (*run_mbufs)(struct uxdp_mbuf **mbufs, u32 n, const void *pool,
			 struct uxdp_burst *burst);
	bool (*find_target)(const struct uxdp_map *maps, u32 num_maps,
			    const struct uxdp_frame *frame, struct uxdp_target *target);
	u32 (*next_device)(struct uxdp_devmap_walk *walk);
	u32 num_ports;
	u32 port; /* which of them */
	u32 queue_id;
	u32 number; /* the worker's */
	u32 num_workers;
	u32 num_maps;
	u32 sample_in;
	u32 stop; /* enum uxdp_stop */
	u32 tail_bytes;
	u32 power;	    /* enum uxdp_power */
	u32 wants_metadata; /* the program asks for what hardware knows of frames */
	u32 asks_for_room;  /* the program may move frames' ends */
	/* Frames come from a device or another CPU: their bytes are in no cache of ours yet, as
	 * those are that a driver has copied. */
	u32 is_written_elsewhere;
	s32 stack_fd;  /* a TAP queue, into the kernel's stack; -1: there is none */
	s32 inject_fd; /* the injector program, the other way there; -1: there is none */
	s32 wake_fd;   /* readable when stop was set */
	u8 *slots;     /* UXDP_SLOTS_BYTES, if there is an injector */
	struct uxdp_cursor *cursor;
	struct uxdp_transmitted *injected; /* what became of what was injected */
};

s32 uxdp_dpdk_init(s32 argc, char **argv, s32 log_fd);
s32 uxdp_dpdk_open(struct uxdp_dpdk_port *port);
s32 uxdp_dpdk_make_rings(void **rings, u32 num_workers);
s32 uxdp_dpdk_give_up(void);
void uxdp_dpdk_observe(struct uxdp_dpdk_port *port);
void uxdp_dpdk_close(struct uxdp_dpdk_port *ports, u32 num_ports, void **rings, u32 num_rings);
void uxdp_dpdk_recover(struct uxdp_dpdk_queue *queue);
void uxdp_dpdk_serve(struct uxdp_dpdk_queue *queue);

#endif
