// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * core: what only the running kernel knows, written to a map: CO-RE relocations, kernel
 * configuration and kernel symbols.
 *
 * The types are declared wrongly on purpose, so that an answer can be told from a guess. Answers
 * are asked for in the program, in a global and in a static subprogram that two programs share.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct net_device {
	int mtu;
	int ifindex;
} __attribute__((preserve_access_index));

struct xdp_rxq_info {
	struct net_device *dev;
	__u32 unknown_field;
} __attribute__((preserve_access_index));

struct xdp_buff {
	struct xdp_rxq_info *rxq;
	void *data;
} __attribute__((preserve_access_index));

/* In the kernel the last one is not what it is here, and has another value. */
enum xdp_mem_type {
	MEM_TYPE_UNKNOWN = 7,
	MEM_TYPE_PAGE_POOL = 99,
};

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig __weak;
extern __u32 CONFIG_NO_SUCH_THING __kconfig __weak;
extern const int no_such_symbol __ksym __weak;
extern void no_such_kfunc(void) __ksym __weak;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u64);
} answers SEC(".maps");

static __attribute__((noinline)) int put(__u32 key, __u64 value)
{
	return bpf_map_update_elem(&answers, &key, &value, BPF_ANY);
}

static __attribute__((noinline)) int from_static(__u32 base)
{
	return put(base, bpf_core_field_offset(struct net_device, ifindex));
}

__attribute__((noinline)) int from_global(struct xdp_md *ctx)
{
	put(10, bpf_core_field_offset(struct xdp_buff, rxq));
	return from_static(11 + (ctx->rx_queue_index & 1));
}

SEC("xdp")
int core(struct xdp_md *ctx)
{
	put(0, bpf_core_field_offset(struct xdp_buff, data));
	put(1, bpf_core_field_exists(struct xdp_rxq_info, unknown_field));
	put(2, bpf_core_field_size(struct net_device, ifindex));
	put(3, bpf_core_type_size(struct xdp_buff));
	put(4, bpf_core_enum_value(enum xdp_mem_type, MEM_TYPE_PAGE_POOL));
	put(5, bpf_core_enum_value_exists(enum xdp_mem_type, MEM_TYPE_UNKNOWN));
	if (bpf_core_field_exists(struct xdp_rxq_info, unknown_field))
		put(6, bpf_core_field_offset(struct xdp_rxq_info, unknown_field));
	put(20, LINUX_KERNEL_VERSION);
	put(21, CONFIG_BPF_SYSCALL);
	put(22, CONFIG_NO_SUCH_THING);
	put(23, &no_such_symbol != 0);
	if (no_such_kfunc)
		no_such_kfunc();
	return from_global(ctx) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp")
int other(struct xdp_md *ctx)
{
	return from_static(14 + (ctx->rx_queue_index & 1)) ? XDP_ABORTED : XDP_DROP;
}

char _license[] SEC("license") = "Dual MIT/GPL";
