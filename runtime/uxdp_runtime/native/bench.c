/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What `uxdp bench` measures: the program on one burst after the other, each frame of another flow.
 *
 * A program changes its frames, so before each burst they are restored: the descriptor, and the
 * first UXDP_BENCH_HEAD bytes, which differ from flow to flow and come from a table. What is behind
 * is the same for all flows and stays. uxdp_bench_empty does all of this and runs no program; the
 * difference is the program. The kernel's side does the same (bpf/bench_restore.bpf.c).
 */
#include "abi.h"

#define UXDP_BENCH_HEAD 64u
#define UXDP_BENCH_VERDICTS 8u

struct uxdp_bench {
	u8 *heads; /* UXDP_BENCH_HEAD bytes for each flow */
	u64 num_flows;
	u64 next; /* flow */
	struct uxdp_frame *frames;
	u8 *chunks; /* one for each frame of a burst */
	u64 chunk_bytes;
	u32 burst;
	u32 frame_bytes;		   /* >= UXDP_BENCH_HEAD */
	u64 verdicts[UXDP_BENCH_VERDICTS]; /* how often; the last is everything else */
};

UXDP_INLINE u32 add_be16(u32 sum, const u8 *word)
{
	return sum + (word[0] << 8 | word[1]);
}

/* The checksum at an offset once words that were zero have this sum: RFC 1624, equation 3. */
UXDP_INLINE void patch_checksum(u8 *head, u32 offset, u32 sum)
{
	u32 check;

	if (!offset)
		return;
	sum += (u16) ~(head[offset] << 8 | head[offset + 1]);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	check = ~sum;
	head[offset] = check >> 8;
	head[offset + 1] = check;
}

/*
 * Write the heads of the flows' frames. first is flow 0's, whose address ends in 24 zero bits and
 * whose port is 0; the offsets of these and of the checksums that cover them, 0 if there are none.
 */
void uxdp_bench_fill(u8 *heads, u64 num_flows, const u8 *first, u32 address, u32 port, u32 ip_check,
		     u32 transport_check)
{
	for (u64 flow = 0; flow < num_flows; flow++) {
		u8 *head = heads + flow * UXDP_BENCH_HEAD;
		/* Odd multipliers visit every number once. */
		u32 host = flow * 0x9e3779b1u & 0xffffff;
		u32 number = 1024 + flow * 7919 % 64000;
		u32 sum;

		__builtin_memcpy(head, first, UXDP_BENCH_HEAD);
		head[address + 1] = host >> 16;
		head[address + 2] = host >> 8;
		head[address + 3] = host;
		sum = add_be16(host >> 16, &head[address + 2]);
		patch_checksum(head, ip_check, sum);
		if (port) {
			head[port] = number >> 8;
			head[port + 1] = number;
			sum = add_be16(sum, &head[port]);
		}
		patch_checksum(head, transport_check, sum);
	}
}

UXDP_INLINE void restore(struct uxdp_bench *bench, u32 i)
{
	struct uxdp_frame *frame = &bench->frames[i];
	u8 *chunk = bench->chunks + i * bench->chunk_bytes;

	frame->data = frame->data_meta = (u64)(chunk + UXDP_HEADROOM);
	frame->data_end = frame->data + bench->frame_bytes;
	frame->hard_start = (u64)chunk;
	frame->limit = (u64)(chunk + bench->chunk_bytes);
	__builtin_memcpy(chunk + UXDP_HEADROOM, bench->heads + bench->next * UXDP_BENCH_HEAD,
			 UXDP_BENCH_HEAD);
	if (++bench->next == bench->num_flows)
		bench->next = 0;
}

UXDP_INLINE void count(struct uxdp_bench *bench)
{
	for (u32 i = 0; i < bench->burst; i++) {
		u32 verdict = bench->frames[i].verdict;

		bench
		    ->verdicts[verdict < UXDP_BENCH_VERDICTS ? verdict : UXDP_BENCH_VERDICTS - 1]++;
	}
}

void uxdp_bench_run(struct uxdp_bench *bench, u64 bursts)
{
	for (; bursts; bursts--) {
		for (u32 i = 0; i < bench->burst; i++)
			restore(bench, i);
		uxdp_run(bench->frames, bench->burst);
		count(bench);
	}
}

void uxdp_bench_empty(struct uxdp_bench *bench, u64 bursts)
{
	for (; bursts; bursts--) {
		for (u32 i = 0; i < bench->burst; i++)
			restore(bench, i);
		__atomic_signal_fence(__ATOMIC_SEQ_CST); /* or half of it would be left out */
		count(bench);
	}
}
