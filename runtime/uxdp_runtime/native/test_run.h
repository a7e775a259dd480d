/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * BPF_PROG_TEST_RUN, by which native code has the kernel run a program of ours on a descriptor that
 * it was given: for that a process needs no capability. The objects are built without any system
 * header.
 *
 * Reference: include/uapi/linux/bpf.h, union bpf_attr
 */
#ifndef UXDP_TEST_RUN_H
#define UXDP_TEST_RUN_H

#include "kernel.h"

#define BPF_PROG_TEST_RUN 10
#define BPF_F_TEST_XDP_LIVE_FRAMES (1u << 1)
#if defined(SYS_bpf) /* DPDK's port has system headers */
#elif defined(__x86_64__)
#define SYS_bpf 321
#else
#define SYS_bpf 280
#endif

struct test_run {
	u32 prog_fd, retval, data_size_in, data_size_out;
	u64 data_in, data_out;
	u32 repeat, duration, ctx_size_in, ctx_size_out;
	u64 ctx_in, ctx_out;
	u32 flags, cpu, batch_size, zero;
};

extern long syscall(long number, ...);

#endif
