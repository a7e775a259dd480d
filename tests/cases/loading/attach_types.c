// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* attach_types: programs for interfaces, for entries of devmaps and for entries of cpumaps, with
 * and without frames of several buffers; and under a name that libbpf does not know. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PROGRAM(name, section)                                                                     \
	SEC(section) int name(struct xdp_md *ctx)                                                  \
	{                                                                                          \
		return ctx->rx_queue_index ? XDP_DROP : XDP_PASS;                                  \
	}

PROGRAM(plain, "xdp")
PROGRAM(plain_frags, "xdp.frags")
PROGRAM(on_device, "xdp/devmap")
PROGRAM(on_device_frags, "xdp.frags/devmap")
PROGRAM(on_cpu, "xdp/cpumap")
PROGRAM(on_cpu_frags, "xdp.frags/cpumap")
PROGRAM(named, "?xdp/devmap")
PROGRAM(older, "xdp_stage")

char _license[] SEC("license") = "Dual MIT/GPL";
