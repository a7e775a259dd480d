// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* bpf_get_numa_node_id: of the CPU that runs the program. */
#include "common.h"

SEC("xdp")
int numa_node(struct xdp_md *ctx)
{
	note(0, bpf_get_numa_node_id() + 1);
	return frame_word(ctx) % 5;
}
