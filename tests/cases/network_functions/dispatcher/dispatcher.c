// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * dispatcher: runs several XDP programs on one interface, one after the other.
 *
 * As libxdp's dispatcher does it: each place in the chain is a global function, which returns a
 * verdict that no program has unless another source gives it a body; the configuration is in
 * .rodata, where the verifier sees which places are in use, and removes the others. A place's
 * chain_call_actions are the verdicts after which the next place runs.
 *
 * Here the three programs of this folder are linked in: acl, meter and steer.
 */
#include "dispatcher.h"

/* Which no program returns: the place is empty, and the chain goes on. */
#define XDP_DISPATCHER_RETVAL 31
#define XDP_DISPATCHER_MAGIC 236
#define XDP_DISPATCHER_VERSION 2
#define MAX_DISPATCHER_ACTIONS 5

struct xdp_dispatcher_conf {
	__u8 magic;
	__u8 dispatcher_version;
	__u8 num_progs_enabled;
	__u8 is_xdp_frags;
	__u32 chain_call_actions[MAX_DISPATCHER_ACTIONS];
	__u32 run_prios[MAX_DISPATCHER_ACTIONS];
	__u32 program_flags[MAX_DISPATCHER_ACTIONS];
};

#define CHAIN_ON(verdict) (1U << (verdict) | 1U << XDP_DISPATCHER_RETVAL)

const volatile struct xdp_dispatcher_conf conf = {
    .magic = XDP_DISPATCHER_MAGIC,
    .dispatcher_version = XDP_DISPATCHER_VERSION,
    .num_progs_enabled = 4,
    .chain_call_actions =
	{
	    CHAIN_ON(XDP_PASS),
	    CHAIN_ON(XDP_PASS),
	    CHAIN_ON(XDP_PASS),
	    CHAIN_ON(XDP_PASS),
	    CHAIN_ON(XDP_PASS),
	},
    .run_prios = {10, 20, 30, 50, 50},
};

/* An empty place; volatile, so that the compiler does not tell the dispatcher what it returns. */
#define PLACE(name)                                                                                \
	__weak __noinline int name(struct xdp_md *ctx)                                             \
	{                                                                                          \
		volatile int ret = XDP_DISPATCHER_RETVAL;                                          \
                                                                                                   \
		if (!ctx)                                                                          \
			return XDP_ABORTED;                                                        \
		return ret;                                                                        \
	}

PLACE(prog0)
PLACE(prog1)
PLACE(prog2)
PLACE(prog3)
PLACE(prog4)

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_COUNTERS);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

__noinline int count(__u32 which)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &which);

	if (counter)
		(*counter)++;
	return 0;
}

SEC("xdp")
int dispatcher(struct xdp_md *ctx)
{
	__u8 num_progs_enabled = conf.num_progs_enabled;
	int ret;

	if (num_progs_enabled < 1)
		goto out;
	ret = prog0(ctx);
	if (!((1U << (ret & 31)) & conf.chain_call_actions[0]))
		return ret;

	if (num_progs_enabled < 2)
		goto out;
	ret = prog1(ctx);
	if (!((1U << (ret & 31)) & conf.chain_call_actions[1]))
		return ret;

	if (num_progs_enabled < 3)
		goto out;
	ret = prog2(ctx);
	if (!((1U << (ret & 31)) & conf.chain_call_actions[2]))
		return ret;

	if (num_progs_enabled < 4)
		goto out;
	ret = prog3(ctx);
	if (!((1U << (ret & 31)) & conf.chain_call_actions[3]))
		return ret;

	if (num_progs_enabled < 5)
		goto out;
	ret = prog4(ctx);
	if (!((1U << (ret & 31)) & conf.chain_call_actions[4]))
		return ret;
out:
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual MIT/GPL";
