/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Asking the kernel: a worker's way to bpf/ask.bpf.c, and what it remembers of the answers.
 *
 * A question is a system call, some 0.4 us. Routers ask for every frame, so answers about routes
 * and devices are kept, each under everything that the kernel was told. An answer is good until the
 * generation moves on, which whoever hears of a change to routes, rules, neighbours, addresses or
 * devices lets it do, and at most UXDP_ANSWER_TICKS long: what nobody tells of (a path's MTU, a
 * sysctl) takes that long to be seen. Sockets come and go; they are always asked for.
 *
 * struct uxdp_kernel belongs to one worker. The loader resolves the symbol for programs that ask,
 * and for no others; where nobody may ask, such a program cannot be loaded. generation is written
 * by another thread, and the counters are read by another process: both with __atomic builtins.
 *
 * Python declares these structs once more, in uxdp_runtime/kernel_state.py; a test compares.
 */
#ifndef UXDP_ASK_H
#define UXDP_ASK_H

#include "clock.h"
#include "test_run.h"
#include "question.h"
#include "routes.h"

/* One second in the units of time that stamps have, of some more than a millisecond. */
#define UXDP_STAMP_SHIFT 20u
#define UXDP_ANSWER_TICKS (NSEC_PER_SEC >> UXDP_STAMP_SHIFT)
#define UXDP_GENERATION_SHIFT 40u /* above them; 2^40 of them are decades */
#define UXDP_DEVICES 64u	  /* a power of two */
/* More than a program has places for pointers: 512 bytes of stack, and registers. */
#define UXDP_SOCKETS 80u

_Static_assert(sizeof(struct uxdp_fib) == 64, "struct bpf_fib_lookup");
_Static_assert(sizeof(struct uxdp_sock) == 80, "struct bpf_sock");

/* What bpf_check_mtu compares with. */
struct uxdp_device {
	u64 stamp;
	u32 ifindex;
	u32 mtu;
	u32 hard_header_len;
	u32 zero;
};

/* A socket that the program holds; to the program a pointer to it is one to its first member. */
struct uxdp_socket {
	struct uxdp_sock sock;
	struct uxdp_socket_name name;
	u32 ifindex; /* where the frame came in, which decides which socket is found */
	u32 queue;
	u32 held;
	u32 zero;
};

struct uxdp_kernel {
	u64 generation; /* from 1 on */
	u64 zero[7];
	/* Below, the worker's own. */
	u64 now_ns; /* for this burst; 0: not read yet */
	u64 program_fd;
	struct uxdp_question *question;
	/* Counters: questions, those of them that the kernel did not take, and answers kept. */
	u64 asked;
	u64 failed;
	u64 remembered;
	u64 num_sockets; /* sockets from there on are not held */
	struct uxdp_routes *routes;
	struct uxdp_device devices[UXDP_DEVICES];
	struct uxdp_socket sockets[UXDP_SOCKETS];
};

extern struct uxdp_kernel uxdp_kernel;

/* Whether the program asks anything; the compiler defines it. */
bool uxdp_asks_kernel(void);

/* A burst begins: another time, and no socket is held, as the verifier has seen to. */
UXDP_INLINE void kernel_begin_burst(void)
{
	uxdp_kernel.now_ns = 0;
	uxdp_kernel.num_sockets = 0;
}

UXDP_INLINE u64 kernel_generation(void)
{
	return __atomic_load_n(&uxdp_kernel.generation, __ATOMIC_ACQUIRE);
}

UXDP_INLINE void kernel_count(u64 *counter)
{
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

/* The time by which answers age: of some milliseconds' accuracy, read once in a burst. */
UXDP_INLINE u64 kernel_now_ns(void)
{
	if (!uxdp_kernel.now_ns)
		uxdp_kernel.now_ns = worker_clock_ns(CLOCK_MONOTONIC_COARSE);
	return uxdp_kernel.now_ns;
}

/* Now, for an answer to a question that is asked now: generation and time. */
UXDP_INLINE u64 kernel_stamp(void)
{
	return (kernel_generation() << UXDP_GENERATION_SHIFT) +
	       (kernel_now_ns() >> UXDP_STAMP_SHIFT);
}

/* Whether an answer is still good. Another generation's time is far away, and 0 was never. */
UXDP_INLINE bool kernel_is_current(u64 stamp)
{
	return kernel_stamp() - stamp < UXDP_ANSWER_TICKS;
}

/*
 * Have the question answered; the rest of it is filled in. ifindex is where the frame came in, 0 if
 * that does not matter. False if the kernel did not take it: the interface is gone.
 */
UXDP_COLD bool kernel_ask(u32 kind, u32 ifindex, u32 queue)
{
	struct uxdp_question *question = uxdp_kernel.question;
	/* The kernel wants a frame, which nobody looks at, of at least an Ethernet header. */
	u8 frame[14] = {0};
	/* struct xdp_md */
	u32 context[6] = {0, sizeof(frame), 0, ifindex, queue, 0};
	struct test_run attr = {
	    .prog_fd = uxdp_kernel.program_fd,
	    .data_size_in = sizeof(frame),
	    .data_in = (u64)frame,
	    .ctx_size_in = ifindex ? sizeof(context) : 0,
	    .ctx_in = ifindex ? (u64)context : 0,
	    .repeat = 1,
	};

	question->kind = kind;
	kernel_count(&uxdp_kernel.asked);
	if (likely(syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)) == 0 &&
		   attr.retval == XDP_PASS))
		return true;
	kernel_count(&uxdp_kernel.failed);
	return false;
}

#endif
