/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Headers like <linux/icmp.h> include <sys/socket.h>, which asks the C library which of its
 * functions are stubs. No machine that glibc knows is defined for BPF, so it asks for those of a
 * 32-bit x86, which only multilib packages have. A BPF program calls no libc function: there are
 * none to list.
 */
