// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * firewall: allow or deny frames by the longest matching prefix of their source address.
 *
 * One longest-prefix-match trie per address family holds the rules, so a narrow rule overrides a
 * wide one: deny 10.0.0.0/8, allow 10.1.2.0/24. Sources without a rule, and frames that are not IP,
 * get the default actions. Up to two VLAN tags are skipped. Everything is counted by reason.
 *
 * It fails closed: what cannot be judged (malformed headers, too many VLAN tags) is dropped,
 * because the host behind it might read such a frame differently.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAX_RULES (1 << 20)
#define MAX_VLAN_TAGS 2 /* a customer tag inside a service tag (IEEE 802.1ad) */

enum action {
	ACTION_DENY,
	ACTION_ALLOW,
};

enum reason {
	REASON_RULE_ALLOWS,
	REASON_RULE_DENIES,
	REASON_DEFAULT_ALLOWS,
	REASON_DEFAULT_DENIES,
	REASON_NOT_IP_ALLOWED,
	REASON_NOT_IP_DENIED,
	REASON_TOO_MANY_TAGS,
	REASON_MALFORMED,
	NUM_REASONS,
};

/* What happens to sources that no rule matches, and to frames that are neither IPv4 nor IPv6. */
const volatile __u32 default_action = ACTION_ALLOW;
const volatile __u32 not_ip_action = ACTION_ALLOW;

struct prefix4 {
	__u32 prefixlen;
	__be32 addr;
};

struct prefix6 {
	__u32 prefixlen;
	struct in6_addr addr;
};

struct vlan_tag {
	__be16 control;
	__be16 next_proto;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_RULES);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* a trie must not be preallocated */
	__type(key, struct prefix4);
	__type(value, __u32); /* enum action */
} rules4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, MAX_RULES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32); /* enum action */
} rules6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NUM_REASONS);
	__type(key, __u32); /* enum reason */
	__type(value, struct counter);
} counters SEC(".maps");

static __always_inline enum reason apply(const __u32 *rule)
{
	if (rule)
		return *rule == ACTION_ALLOW ? REASON_RULE_ALLOWS : REASON_RULE_DENIES;
	return default_action == ACTION_ALLOW ? REASON_DEFAULT_ALLOWS : REASON_DEFAULT_DENIES;
}

static __always_inline enum reason judge_ipv4(void *data, void *data_end)
{
	struct prefix4 source = {.prefixlen = 32};
	struct iphdr *ip = data;
	__u32 header_len, len;

	if ((void *)(ip + 1) > data_end || ip->version != 4)
		return REASON_MALFORMED;
	header_len = ip->ihl * 4;
	len = bpf_ntohs(ip->tot_len);
	if (header_len < sizeof(*ip) || len < header_len || len > data_end - data)
		return REASON_MALFORMED;

	source.addr = ip->saddr;
	return apply(bpf_map_lookup_elem(&rules4, &source));
}

static __always_inline enum reason judge_ipv6(void *data, void *data_end)
{
	struct prefix6 source = {.prefixlen = 128};
	struct ipv6hdr *ip = data;

	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return REASON_MALFORMED;
	if (bpf_ntohs(ip->payload_len) > data_end - (void *)(ip + 1))
		return REASON_MALFORMED;

	source.addr = ip->saddr;
	return apply(bpf_map_lookup_elem(&rules6, &source));
}

static __always_inline bool is_vlan(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
}

static __always_inline enum reason judge(void *data, void *data_end)
{
	struct ethhdr *eth = data;
	void *next = eth + 1;
	__be16 proto;

	if (next > data_end)
		return REASON_MALFORMED;
	proto = eth->h_proto;

	for (int i = 0; i < MAX_VLAN_TAGS && is_vlan(proto); i++) {
		struct vlan_tag *tag = next;

		next = tag + 1;
		if (next > data_end)
			return REASON_MALFORMED;
		proto = tag->next_proto;
	}
	if (is_vlan(proto))
		return REASON_TOO_MANY_TAGS;

	if (proto == bpf_htons(ETH_P_IP))
		return judge_ipv4(next, data_end);
	if (proto == bpf_htons(ETH_P_IPV6))
		return judge_ipv6(next, data_end);
	return not_ip_action == ACTION_ALLOW ? REASON_NOT_IP_ALLOWED : REASON_NOT_IP_DENIED;
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	__u32 reason = judge(data, data_end);
	struct counter *counter;

	counter = bpf_map_lookup_elem(&counters, &reason);
	if (counter) {
		counter->packets++;
		counter->bytes += data_end - data;
	}

	switch (reason) {
	case REASON_RULE_ALLOWS:
	case REASON_DEFAULT_ALLOWS:
	case REASON_NOT_IP_ALLOWED:
		return XDP_PASS;
	default:
		return XDP_DROP;
	}
}

char _license[] SEC("license") = "Dual MIT/GPL";
