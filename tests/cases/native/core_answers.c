// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* CO-RE: fields that exist and that do not, sizes, offsets, types and enumerators of this kernel.
 */
#include "common.h"
#include <bpf/bpf_core_read.h>

struct net_device {
	int mtu, ifindex;
	int no_such_field;
} __attribute__((preserve_access_index));

struct no_such_type {
	int field;
} __attribute__((preserve_access_index));

enum xdp_action___renamed {
	XDP_TX___renamed = 77,
};

enum no_such_enum {
	NO_SUCH_VALUE = 5,
};

SEC("xdp")
int core_answers(struct xdp_md *ctx)
{
	note(0, bpf_core_field_exists(struct net_device, ifindex));
	note(1, bpf_core_field_exists(struct net_device, no_such_field));
	note(2, bpf_core_field_size(struct net_device, mtu));
	note(3, bpf_core_field_offset(struct net_device, mtu));
	note(4, bpf_core_type_exists(struct net_device));
	note(5, bpf_core_type_exists(struct no_such_type));
	note(6, bpf_core_type_size(struct net_device));
	note(7, bpf_core_enum_value_exists(enum xdp_action___renamed, XDP_TX___renamed));
	note(8, bpf_core_enum_value(enum xdp_action___renamed, XDP_TX___renamed));
	note(9, bpf_core_enum_value_exists(enum no_such_enum, NO_SUCH_VALUE));
	if (bpf_core_field_exists(struct net_device, no_such_field))
		return XDP_DROP;
	return bpf_core_enum_value(enum xdp_action___renamed, XDP_TX___renamed);
}
