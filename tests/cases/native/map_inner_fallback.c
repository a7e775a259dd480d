// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* An inner map, or a declared one where there is none: of the same kind, or with other sizes. */
#include "common.h"

struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct table);
} tables SEC(".maps") = {.values = {&first}};

/* Gets full sooner. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} shared SEC(".maps");

struct row {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} row SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct row);
} rows SEC(".maps") = {.values = {[1] = &row}};

/* Has elements where a row has none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} wide SEC(".maps");

SEC("xdp")
int map_inner_fallback(struct xdp_md *ctx)
{
	__u32 word = frame_word(ctx), slot = word % 3, key = word >> 8 & 127,
	      column = word >> 16 & 15;
	__u64 one = 1, *found;
	void *table, *columns;

	table = bpf_map_lookup_elem(&tables, &slot);
	if (!table)
		table = &shared;
	found = bpf_map_lookup_elem(table, &key);
	if (found)
		*found += word;
	else
		note(slot, bpf_map_update_elem(table, &key, &one, BPF_NOEXIST));
	if (word >> 28 == 7)
		note(3, bpf_map_delete_elem(table, &key));

	columns = bpf_map_lookup_elem(&rows, &slot);
	if (!columns)
		columns = &wide;
	found = bpf_map_lookup_elem(columns, &column);
	note(4, !found);
	if (found)
		*found += word;
	return found ? XDP_PASS : XDP_DROP;
}
