/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The program on frames that DPDK has received, without descriptors: it, what finds a frame in its
 * mbuf, and what counts are one loop, whose descriptor lives in registers. Programs that ask for
 * more than their frames and maps run as everywhere (run.c).
 *
 * struct uxdp_mbuf is the first cache line of DPDK's struct rte_mbuf, and the constants are
 * DPDK's: where the port is compiled against a DPDK that has others, it is refused (ports/dpdk.c).
 *
 * References: https://doc.dpdk.org/guides-22.11/prog_guide/mbuf_lib.html
 */
#ifndef UXDP_MBUFS_H
#define UXDP_MBUFS_H

#include "abi.h"

#define UXDP_MBUF_BYTES 128u
#define UXDP_MBUF_PRIVATE_BYTES 128u /* with RTE_PKTMBUF_HEADROOM: UXDP_HEADROOM */

/* refcnt and nb_segs of a frame's only mbuf, which has one owner; they are looked at as one word.
 */
#define UXDP_MBUF_SIMPLE 0x00010001u
/* RTE_MBUF_F_RX_VLAN_STRIPPED, RTE_MBUF_F_EXTERNAL, RTE_MBUF_F_INDIRECT */
#define UXDP_MBUF_APART_FLAGS (1ull << 6 | 1ull << 61 | 1ull << 62)

struct uxdp_mbuf {
	u64 buf_addr;
	u64 buf_iova;
	u16 data_off;
	u16 refcnt;
	u16 nb_segs;
	u16 port;
	u64 ol_flags;
	u32 packet_type;
	u32 pkt_len;
	u16 data_len;
	u16 others[7];
	const void *pool;
};

#define UXDP_MBUFS 128u /* in a burst, at most */

/* What a burst's frames were when they were received, and what the program said. */
struct uxdp_burst {
	u64 rx_bytes;		  /* of all */
	u64 ol_flags;		  /* of any */
	u32 verdict;		  /* of each, or UXDP_VERDICTS_DIFFER */
	u32 verdicts[UXDP_MBUFS]; /* of uxdp_run_mbufs */
	u32 ingress_ifindex;	  /* for it */
	u32 rx_queue_index;
};

/* Whether a frame lies in one mbuf of a pool, and nobody else has that. */
UXDP_INLINE bool mbuf_is_simple(const struct uxdp_mbuf *mbuf, const void *pool)
{
	u32 word;

	__builtin_memcpy(&word, &mbuf->refcnt, sizeof(word));
	return word == UXDP_MBUF_SIMPLE && mbuf->pool == pool &&
	       !(mbuf->ol_flags & UXDP_MBUF_APART_FLAGS);
}

/* Of a simple mbuf the address says where all else is. */
UXDP_INLINE u64 mbuf_data(const struct uxdp_mbuf *mbuf)
{
	return (u64)mbuf + UXDP_MBUF_BYTES + UXDP_MBUF_PRIVATE_BYTES + mbuf->data_off;
}

/* Whether the program asks for nothing but frames and maps, so that uxdp_run_mbufs runs it. */
bool uxdp_takes_mbufs(void);

/*
 * Run the program on the frames of a burst, at most UXDP_MBUFS, up to the first that does not lie
 * in one mbuf of the pool; how many these are. It moves no frame's ends.
 */
u32 uxdp_run_mbufs(struct uxdp_mbuf **mbufs, u32 n, const void *pool, struct uxdp_burst *burst);

#endif
