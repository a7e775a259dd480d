// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Every kind of CO-RE relocation: of fields, whole and of bits, of types, and of enumerators. */
#include "common.h"
#include <bpf/bpf_core_read.h>

struct sk_buff___bits {
	__u8 cloned : 1;
	__s8 no_such_bits : 3;
	int len;
} __attribute__((preserve_access_index));

struct net_device___core {
	unsigned int mtu;
	int ifindex;
	int no_such_field;
} __attribute__((preserve_access_index));

struct list_head {
	struct list_head *next, *prev;
} __attribute__((preserve_access_index));

struct list_head___other {
	int next;
} __attribute__((preserve_access_index));

enum xdp_action___renamed {
	XDP_TX___renamed = 77,
};

enum bpf_map_type___wide {
	BPF_MAP_TYPE_LPM_TRIE___wide = 0x100000000ULL,
};

typedef int no_such_typedef;

SEC("xdp")
int core_kinds(struct xdp_md *ctx)
{
	struct net_device___core *device = (void *)0;
	struct sk_buff___bits *skb = (void *)0;

	/* BPF_CORE_FIELD_BYTE_OFFSET, _BYTE_SIZE, _EXISTS, _SIGNED */
	note(0, __builtin_preserve_field_info(device->mtu, BPF_FIELD_BYTE_OFFSET));
	note(1, __builtin_preserve_field_info(device->mtu, BPF_FIELD_BYTE_SIZE));
	note(2, __builtin_preserve_field_info(device->mtu, BPF_FIELD_EXISTS));
	note(3, __builtin_preserve_field_info(device->no_such_field, BPF_FIELD_EXISTS));
	note(4, __builtin_preserve_field_info(device->mtu, BPF_FIELD_SIGNED));
	note(5, __builtin_preserve_field_info(device->ifindex, BPF_FIELD_SIGNED));
	/* _LSHIFT_U64, _RSHIFT_U64 of a bit field */
	note(6, __builtin_preserve_field_info(skb->cloned, BPF_FIELD_BYTE_OFFSET));
	note(7, __builtin_preserve_field_info(skb->cloned, BPF_FIELD_BYTE_SIZE));
	note(8, __builtin_preserve_field_info(skb->cloned, BPF_FIELD_LSHIFT_U64));
	note(9, __builtin_preserve_field_info(skb->cloned, BPF_FIELD_RSHIFT_U64));
	note(10, __builtin_preserve_field_info(skb->no_such_bits, BPF_FIELD_EXISTS));
	/* BPF_CORE_TYPE_ID_LOCAL, _TARGET, _EXISTS, _SIZE, _MATCHES */
	note(11, bpf_core_type_id_local(struct net_device___core));
	note(12, bpf_core_type_id_kernel(struct net_device___core));
	note(13, bpf_core_type_exists(struct net_device___core));
	note(14, bpf_core_type_exists(no_such_typedef));
	note(15, bpf_core_type_size(struct list_head));
	note(16, bpf_core_type_matches(struct list_head));
	note(17, bpf_core_type_matches(struct list_head___other));
	/* BPF_CORE_ENUMVAL_EXISTS, _VALUE */
	note(18, bpf_core_enum_value_exists(enum xdp_action___renamed, XDP_TX___renamed));
	note(19, bpf_core_enum_value(enum xdp_action___renamed, XDP_TX___renamed));
	note(20, bpf_core_enum_value(enum bpf_map_type___wide, BPF_MAP_TYPE_LPM_TRIE___wide));
	return XDP_PASS;
}
