/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A frame's bytes: its start, its end and what is between.
 *
 * struct uxdp_frame says where the buffer begins (hard_start) and where its tailroom ends (limit).
 *In the kernel they are xdp_buff.data_hard_start and xdp_data_hard_end(), that is data_hard_start +
 *frame_sz minus SKB_DATA_ALIGN(sizeof(struct skb_shared_info)) = 320 bytes. In BPF_PROG_TEST_RUN
 *frame_sz is PAGE_SIZE and the frame starts 256 bytes (XDP_PACKET_HEADROOM) into it, metadata
 *included, so there hard_start = data - 256, limit = hard_start + 4096 - 320 data_meta > data says
 *that there can be no metadata (xdp_data_meta_unsupported()).
 *
 * References: net/core/filter.c, bpf_xdp_adjust_head() and the following; include/net/xdp.h
 */
#include "../memory.h"

#define ETH_HLEN 14
#define XDP_FRAME_BYTES                                                                            \
	40 /* sizeof(struct xdp_frame): the kernel puts one at the start of the headroom */
#define XDP_META_MAX 255 /* skb_shared_info.meta_len is a u8; and a multiple of 4 */

UXDP_HELPER s64 uxdp_helper_xdp_adjust_head(struct uxdp_frame *frame, u64 delta)
{
	u64 meta = frame->data_meta > frame->data ? 0 : frame->data - frame->data_meta;
	u64 data = frame->data + (s64)(s32)delta;

	if (unlikely(data < frame->hard_start + XDP_FRAME_BYTES + meta ||
		     data > frame->data_end - ETH_HLEN))
		return -EINVAL;
	if (unlikely(meta))
		__builtin_memmove((void *)(data - meta), (void *)frame->data_meta, meta);
	frame->data_meta += data - frame->data;
	frame->data = data;
	return 0;
}

UXDP_HELPER s64 uxdp_helper_xdp_adjust_meta(struct uxdp_frame *frame, u64 delta)
{
	u64 data_meta = frame->data_meta + (s64)(s32)delta;
	u64 meta = frame->data - data_meta;

	if (unlikely(frame->data_meta > frame->data))
		return -ENOTSUPP;
	if (unlikely(data_meta < frame->hard_start + XDP_FRAME_BYTES || data_meta > frame->data))
		return -EINVAL;
	if (unlikely(meta % 4 || meta > XDP_META_MAX))
		return -EACCES;
	frame->data_meta = data_meta;
	return 0;
}

UXDP_HELPER s64 uxdp_helper_xdp_adjust_tail(struct uxdp_frame *frame, u64 delta)
{
	s64 change = (s32)delta;
	u64 data_end = frame->data_end + change;

	if (unlikely(data_end > frame->limit || data_end < frame->data + ETH_HLEN))
		return -EINVAL;
	if (change > 0)
		__builtin_memset((void *)frame->data_end, 0, change);
	frame->data_end = data_end;
	return 0;
}

UXDP_HELPER u64 uxdp_helper_xdp_get_buff_len(const struct uxdp_frame *frame)
{
	return frame->data_end - frame->data;
}

/* bpf_xdp_pointer(); offset and len are u32 there */
UXDP_INLINE s64 check_range(const struct uxdp_frame *frame, u32 offset, u32 len)
{
	if (unlikely(offset > 0xffff || len > 0xffff))
		return -EFAULT;
	if (unlikely(offset + len > frame->data_end - frame->data))
		return -EINVAL;
	return 0;
}

UXDP_HELPER s64 uxdp_helper_xdp_load_bytes(const struct uxdp_frame *frame, u64 offset, void *buffer,
					   u64 len)
{
	s64 error = check_range(frame, offset, len);

	if (error)
		return error;
	__builtin_memcpy(buffer, (const void *)(frame->data + (u32)offset), (u32)len);
	return 0;
}

UXDP_HELPER s64 uxdp_helper_xdp_store_bytes(const struct uxdp_frame *frame, u64 offset,
					    const void *buffer, u64 len)
{
	s64 error = check_range(frame, offset, len);

	if (error)
		return error;
	__builtin_memcpy((void *)(frame->data + (u32)offset), buffer, (u32)len);
	return 0;
}

/* A frame is in one piece, so that there is nothing to pull. */
UXDP_HELPER s32 uxdp_kfunc_xdp_pull_data(const struct uxdp_frame *frame, u32 len)
{
	return unlikely(len > frame->data_end - frame->data) ? -EINVAL : 0;
}
