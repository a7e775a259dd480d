/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The system calls of the AF_XDP port, and the kernel's numbers for them: the objects are built
 * without any system header.
 */
#ifndef UXDP_PORTS_SYSTEM_H
#define UXDP_PORTS_SYSTEM_H

#include "../test_run.h"

#define XDP_RING_NEED_WAKEUP 1u
#define XDP_PKT_CONTD 1u
#define MSG_DONTWAIT 0x40
#define POLLIN 1
#if defined(__x86_64__)
#define SYS_gettid 186
#else
#define SYS_gettid 178
#endif

struct pollfd {
	s32 fd;
	short events;
	short revents;
};

extern int poll(struct pollfd *fds, u64 n, int timeout_ms);
extern s64 sendto(int fd, const void *buffer, u64 len, int flags, const void *addr, u32 addr_len);
extern s64 recvfrom(int fd, void *buffer, u64 len, int flags, void *addr, u32 *addr_len);
extern int *__errno_location(void);

#endif
