"""Make the source of a large program: as many instructions as the largest network functions have, for timing.

Each of its services is a stretch of ordinary code: a header that is parsed again, a key that is looked up in a table of
flows, counters, a hash, encapsulation in part, checksums. The services are tried one after the other.
"""

from typing import Final

# Instructions that a service and everything around them come to, about, at -O2 for cpu v3.
_PER_SERVICE: Final = 156
_AROUND: Final = 60

_HEAD: Final = """\
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow {
	__u32 source, destination;
	__u16 source_port, destination_port;
	__u8 protocol, service;
	__u16 zero;
};

struct state {
	__u64 packets, bytes;
	__u32 real, flags;
};

struct counters {
	__u64 packets, bytes, misses;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct state);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct state);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

static __always_inline __u32 mixed(__u32 a, __u32 b, __u32 c)
{
	a -= c; a ^= c << 4 | c >> 28; c += b;
	b -= a; b ^= a << 6 | a >> 26; a += c;
	c -= b; c ^= b << 8 | b >> 24; b += a;
	a -= c; a ^= c << 16 | c >> 16; c += b;
	return c ^ a ^ b;
}

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

"""

_SERVICE: Final = """\
static __always_inline int service_{number}(struct xdp_md *ctx, struct iphdr *ip, struct udphdr *udp, __u32 length)
{{
	struct flow flow = {{
		.source = ip->saddr ^ {mask},
		.destination = ip->daddr,
		.source_port = udp->source,
		.destination_port = udp->dest,
		.protocol = ip->protocol,
		.service = {number} & 255,
	}};
	__u32 hash = mixed(flow.source, flow.destination, {mask} + flow.source_port);
	__u64 name = (__u64)hash << 32 | {number};
	__u32 index = {number} & 511;
	struct state fresh = {{}}, *state;
	struct counters *counter = bpf_map_lookup_elem(&counts, &index);

	if (!counter)
		return XDP_ABORTED;
	counter->packets++;
	counter->bytes += length;
	if ((hash & 63) == {number} % 64)
		return -1;
	state = bpf_map_lookup_elem(&flows, &flow);
	if (!state) {{
		counter->misses++;
		state = bpf_map_lookup_elem(&services, &name);
		fresh.real = state ? state->real : hash % {prime};
		fresh.packets = 1;
		if (bpf_map_update_elem(&flows, &flow, &fresh, BPF_ANY))
			return XDP_DROP;
		return -1;
	}}
	state->packets++;
	state->bytes += length;
	if (state->flags & 1)
		return XDP_PASS;
	ip->daddr = bpf_htonl(0x0a000000 | state->real);
	ip->ttl--;
	ip->check = folded((__u16)~ip->check + 0x{number:x} + (state->real & 0xffff));
	udp->dest = bpf_htons(bpf_ntohs(udp->dest) ^ (hash & 7));
	udp->check = 0;
	return state->real & 0x800 ? XDP_TX : -1;
}}

"""

_ENTRY: Final = """\
SEC("xdp")
int large(struct xdp_md *ctx)
{{
	void *data_end = (void *)(long)ctx->data_end, *data = (void *)(long)ctx->data;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct udphdr *udp = (void *)(ip + 1);
	int verdict;

	if ((void *)(udp + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
		return XDP_PASS;
	if (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP)
		return XDP_PASS;
{calls}	return XDP_DROP;
}}

char _license[] SEC("license") = "Dual MIT/GPL";
"""
_CALL: Final = """\
	verdict = service_{number}(ctx, ip, udp, data_end - data);
	if (verdict >= 0)
		return verdict;
"""


def large_program(instructions: int) -> str:
    """Return C source of about so many BPF instructions in one function."""
    count = max(1, (instructions - _AROUND) // _PER_SERVICE)
    numbers = range(1, count + 1)
    services = (
        _SERVICE.format(number=number, mask=number * 2654435761 % (1 << 32), prime=2 * number + 101)
        for number in numbers
    )
    return _HEAD + "".join(services) + _ENTRY.format(calls="".join(_CALL.format(number=number) for number in numbers))
