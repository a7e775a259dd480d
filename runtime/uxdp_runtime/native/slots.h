/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the injector (native/bpf/inject.bpf.c) and those who fill its slots share.
 *
 * Slots lie one behind another, each as long as its frame needs: those of a thousand small frames
 * are on 32 pages then, and stay in caches and TLB.
 */
#ifndef UXDP_SLOTS_H
#define UXDP_SLOTS_H

/* Frames that wait to be injected, at most; and the bytes of all their slots. */
#define UXDP_PENDING 1024u
#define UXDP_SLOTS_BYTES (1u << 20)
/* The longest slot; each begins at a cache line. */
#define UXDP_SLOT_BYTES 3520u
#define UXDP_SLOT_HEAD_BYTES 16u
#define UXDP_SLOT_DATA_BYTES (UXDP_SLOT_BYTES - UXDP_SLOT_HEAD_BYTES)
#define UXDP_SLOT_ALIGN 64u

/* What the injector makes a frame of. */
struct uxdp_slot {
	unsigned int len;
	unsigned int action;  /* XDP_PASS, XDP_TX or XDP_REDIRECT */
	unsigned int ifindex; /* of XDP_REDIRECT */
	unsigned int zero;
	unsigned char data[UXDP_SLOT_DATA_BYTES]; /* len of them are there */
};

/* How far the injector is. */
struct uxdp_cursor {
	unsigned int taken; /* slots */
	unsigned int at;    /* where the next one begins */
};

/* What became of injected frames that leave by an interface. */
struct uxdp_transmitted {
	unsigned int thread; /* whose frames are counted: gettid() */
	unsigned int zero;
	unsigned long long taken;
	unsigned long long refused;
	unsigned long long failed; /* the injector itself could not make a frame of the slot */
};

/* Where the slot behind one of a frame of len bytes begins, from where that begins. */
#define UXDP_SLOT_STEP(len)                                                                        \
	((UXDP_SLOT_HEAD_BYTES + (len) + UXDP_SLOT_ALIGN - 1) & ~(UXDP_SLOT_ALIGN - 1))

#endif
