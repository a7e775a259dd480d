/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What hardware knows of a frame: bpf_xdp_metadata_rx_*. Where there is no value, the program's
 * variables are left alone, as drivers do.
 *
 * References: net/core/xdp.c; Documentation/networking/xdp-rx-metadata.rst
 */
#include "../memory.h"

UXDP_INLINE const struct uxdp_rx_metadata *frame_metadata(const struct uxdp_frame *frame)
{
	const struct uxdp_rx_metadata *first = uxdp_worker.rx_metadata;

	return first ? first + (frame - uxdp_worker.burst) : NULL;
}

UXDP_HELPER s32 uxdp_kfunc_xdp_metadata_rx_timestamp(const struct uxdp_frame *frame, u64 *timestamp)
{
	const struct uxdp_rx_metadata *known = frame_metadata(frame);

	if (!known)
		return -EOPNOTSUPP;
	if (!known->timestamp_error)
		*timestamp = known->timestamp_ns;
	return known->timestamp_error;
}

UXDP_HELPER s32 uxdp_kfunc_xdp_metadata_rx_hash(const struct uxdp_frame *frame, u32 *hash,
						u32 *hash_type)
{
	const struct uxdp_rx_metadata *known = frame_metadata(frame);

	if (!known)
		return -EOPNOTSUPP;
	if (!known->hash_error) {
		*hash = known->hash;
		*hash_type = known->hash_type;
	}
	return known->hash_error;
}

UXDP_HELPER s32 uxdp_kfunc_xdp_metadata_rx_vlan_tag(const struct uxdp_frame *frame, u16 *proto,
						    u16 *tci)
{
	const struct uxdp_rx_metadata *known = frame_metadata(frame);

	if (!known)
		return -EOPNOTSUPP;
	if (!known->vlan_error) {
		*proto = known->vlan_proto;
		*tci = known->vlan_tci;
	}
	return known->vlan_error;
}
