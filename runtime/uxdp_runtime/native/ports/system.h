/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The system calls of the AF_XDP port, and the kernel's numbers for them: the objects are built
 * without any system header.
 */
#ifndef UXDP_PORTS_SYSTEM_H
#define UXDP_PORTS_SYSTEM_H

#include "../kernel.h"

#define XDP_RING_NEED_WAKEUP 1u
#define XDP_PKT_CONTD 1u
#define BPF_PROG_TEST_RUN 10
#define BPF_F_TEST_XDP_LIVE_FRAMES (1u << 1)
#define MSG_DONTWAIT 0x40
#define POLLIN 1
#if defined(__x86_64__)
#define SYS_bpf 321
#define SYS_gettid 186
#else
#define SYS_bpf 280
#define SYS_gettid 178
#endif

struct pollfd {
	s32 fd;
	short events;
	short revents;
};

extern int poll(struct pollfd *fds, u64 n, int timeout_ms);
extern s64 sendto(int fd, const void *buffer, u64 len, int flags, const void *addr, u32 addr_len);
extern long syscall(long number, ...);
extern int *__errno_location(void);

#endif
