/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Numbers of the kernel's ABI. No system header is included anywhere in native/: the bitcode is
 * made for other machines than the one that builds the wheel, and must not depend on that one's
 * headers.
 *
 * References: include/uapi/linux/bpf.h, include/uapi/asm-generic/errno*.h, include/linux/errno.h
 */
#ifndef UXDP_KERNEL_H
#define UXDP_KERNEL_H

#include "abi.h"

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LRU_PERCPU_HASH = 10,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_HASH_OF_MAPS = 13,
	BPF_MAP_TYPE_DEVMAP = 14,
	BPF_MAP_TYPE_CPUMAP = 16,
	BPF_MAP_TYPE_XSKMAP = 17,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_STACK = 23,
	BPF_MAP_TYPE_DEVMAP_HASH = 25,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_MAP_TYPE_BLOOM_FILTER = 30,
	BPF_MAP_TYPE_USER_RINGBUF = 31,
};

/* Flags of a map's definition. */
enum {
	BPF_F_NO_PREALLOC = 1u << 0,
	BPF_F_NO_COMMON_LRU = 1u << 1,
	BPF_F_NUMA_NODE = 1u << 2,
	BPF_F_RDONLY = 1u << 3,
	BPF_F_WRONLY = 1u << 4,
	BPF_F_ZERO_SEED = 1u << 6,
	BPF_F_RDONLY_PROG = 1u << 7,
	BPF_F_WRONLY_PROG = 1u << 8,
	BPF_F_MMAPABLE = 1u << 10,
	BPF_F_PRESERVE_ELEMS = 1u << 11,
	BPF_F_INNER_MAP = 1u << 12,
	BPF_F_ACCESS_MASK = BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG,
};

/* Flags of an update. */
enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
	BPF_F_LOCK = 4,
};

enum xdp_action {
	XDP_ABORTED = 0,
	XDP_DROP = 1,
	XDP_PASS = 2,
	XDP_TX = 3,
	XDP_REDIRECT = 4,
};

/* Flags of bpf_redirect_map. */
enum {
	BPF_F_BROADCAST = 1u << 3,
	BPF_F_EXCLUDE_INGRESS = 1u << 4,
};

/* Flags and headers of ring buffers. */
enum {
	BPF_RB_NO_WAKEUP = 1u << 0,
	BPF_RB_FORCE_WAKEUP = 1u << 1,

	BPF_RB_AVAIL_DATA = 0,
	BPF_RB_RING_SIZE = 1,
	BPF_RB_CONS_POS = 2,
	BPF_RB_PROD_POS = 3,

	BPF_RINGBUF_HDR_SZ = 8,
};
#define BPF_RINGBUF_BUSY_BIT (1u << 31)
#define BPF_RINGBUF_DISCARD_BIT (1u << 30)

/* As in <errno.h>, so that a test may include both. */
#define EPERM 1
#define ENOENT 2
#define EINTR 4
#define EIO 5
#define E2BIG 7
#define EAGAIN 11
#define ENOMEM 12
#define EACCES 13
#define EFAULT 14
#define ENXIO 6
#define EBUSY 16
#define EEXIST 17
#define ENODEV 19
#define EINVAL 22
#define ENOSPC 28
#define EDEADLK 35
#define EOVERFLOW 75
#define EOPNOTSUPP 95
#define ERANGE 34
#define ENOBUFS 105
#define ETIMEDOUT 110
#define ENOTSUPP 524 /* the kernel's own, include/linux/errno.h; bpf(2) and helpers return it */

#define BPF_MAX_LOOPS (8u << 20) /* include/linux/bpf.h */
/* In front of a frame of which hardware was asked, as the last thing of all; see native/bpf/bpf.h.
 */
#define UXDP_METADATA_MARK 0x7875, 0x7064, 0x6d64

#define PAGE_SIZE 4096ull /* the unit of stores; the kernel's may be larger on aarch64 */
#define KMALLOC_MAX_SIZE                                                                           \
	(4u << 20) /* 1 << (MAX_PAGE_ORDER 10 + PAGE_SHIFT 12), include/linux/slab.h */
#define PCPU_MIN_UNIT_SIZE (32u << 10) /* include/linux/percpu.h */

#endif
