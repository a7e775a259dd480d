// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* map_value_types: keys and values of every shape that BTF describes, and some that it does not. */
#include <linux/bpf.h>
#include <linux/in6.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum color {
	RED,
	GREEN = 7,
	BLUE = -2,
};

enum wide {
	SMALL = 1,
	HUGE = 0x123456789aULL,
};

typedef char letter;
typedef __be32 ipv4_addr;

struct inner {
	__u16 a;
	__s8 b;
};

union address {
	__be32 v4;
	struct in6_addr v6;
};

struct shapes {
	__s64 s64;
	__u64 u64;
	__s16 s16;
	__be16 port;
	_Bool flag;
	char c;
	char name[16];
	signed char schars[4];
	unsigned char mac[6];
	letter letters[4];
	enum color color;
	enum wide wide;
	__u32 low : 3, mid : 13, high : 16;
	__s32 signed_bits : 5;
	__u64 wide_bits : 40;
	union {
		__u32 word;
		__u8 parts[4];
	};
	struct {
		__u32 x;
		__u16 y;
	};
	union address addr;
	struct inner grid[2][3];
	void *pointer;
	__int128 big;
	unsigned __int128 unsigned_big;
	struct inner nested;
	enum color colors[2];
	ipv4_addr gateways[2];
	__be64 cookie;
	struct {
	} nothing;
	__u32 rest[0];
};

struct service {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 zero;
};

struct prefix6 {
	__u32 prefixlen;
	struct in6_addr addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct inner);
	__type(value, struct shapes);
} shapes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, struct service);
	__type(value, __u32);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct inner);
} per_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u16[2]);
} per_cpu_lists SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, enum color);
	__type(value, char[8]);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__uint(key_size, 3);
	__uint(value_size, 5);
} untyped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__uint(value_size, 4);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 8);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

const volatile __u32 seed = 5;
const volatile char label[8] = "hello";
const volatile __u64 magic = 0x1122334455667788ULL;
static volatile __u64 counter = 9;
__u64 total;
struct service fallback = {.addr = bpf_htonl(0x0a000001), .port = bpf_htons(80), .proto = 6};

SEC("xdp")
int map_value_types(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	__be16 *words = (void *)(long)ctx->data;
	struct service key = fallback;
	struct inner index = {.a = label[seed & 7]};
	struct shapes *shape;
	__u32 *found;

	if ((void *)(words + 19) > data_end)
		return XDP_PASS;
	total++;
	counter++;
	if (words[6] != bpf_htons(0x0800) || words[18] == bpf_htons(4789))
		return XDP_PASS;
	key.port = words[18];
	found = bpf_map_lookup_elem(&services, &key);
	if (found)
		__sync_fetch_and_add(found, 1);
	shape = bpf_map_lookup_elem(&shapes, &index);
	if (shape)
		shape->u64++;
	return total == magic ? XDP_DROP : XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
