/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What l2_swap does, for DPDK's own eBPF (rte_bpf), which knows no XDP: a program is a filter on
 * received packets, given where their data begins; 0 drops one.
 *
 * Reference: https://doc.dpdk.org/guides-22.11/prog_guide/bpf_lib.html
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

u64 swap_addresses(u8 *data)
{
	u32 destination = *(u32 *)data, source = *(u32 *)(data + 6);
	u16 destination_end = *(u16 *)(data + 4), source_end = *(u16 *)(data + 10);

	*(u32 *)data = source;
	*(u16 *)(data + 4) = source_end;
	*(u32 *)(data + 6) = destination;
	*(u16 *)(data + 10) = destination_end;
	return 1;
}
