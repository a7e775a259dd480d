// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A frame as a dynptr: slices that are read and written, by offsets and lengths in and behind the
 * frame, adjusted and cloned dynptrs, null ones, flags. */
#include "kfuncs.h"

static __always_inline __u64 bytes_of(const __u8 *bytes)
{
	return bytes ? bytes[0] | bytes[7] << 8 | bytes[13] << 16 : 77;
}

SEC("xdp")
int dynptr_xdp(struct xdp_md *ctx)
{
	struct bpf_dynptr frame, clone, other, null;
	__u8 buffer[14] = {}, *bytes;
	__u32 word = frame_word(ctx);

	note(0, bpf_dynptr_from_xdp(ctx, 0, &frame));
	note(1, bpf_dynptr_from_xdp(ctx, 1, &null));
	note(2, bpf_dynptr_size(&frame));
	note(3, bpf_dynptr_size(&null));
	note(4, bpf_dynptr_is_null(&frame) | bpf_dynptr_is_null(&null) << 1);
	note(5, bpf_dynptr_is_rdonly(&frame) | bpf_dynptr_is_rdonly(&null) << 1);
	note(6, bytes_of(bpf_dynptr_slice(&frame, 0, NULL, 14)));
	note(7, bytes_of(bpf_dynptr_slice(&frame, word & 127, buffer, 14)));
	note(8, bytes_of(bpf_dynptr_slice(&frame, word >> 7 & 127, NULL, 14)));
	note(9, bytes_of(bpf_dynptr_slice(&null, 0, buffer, 14)));
	note(10, bytes_of(bpf_dynptr_slice(&frame, 0xffffffff, buffer, 14)));
	bytes = bpf_dynptr_slice_rdwr(&frame, word & 31, buffer, 14);
	if (bytes) {
		bytes[3] ^= word;
		bytes[13] = 5;
	}
	note(11, bpf_dynptr_adjust(&frame, word & 63, word & 127));
	note(12, bpf_dynptr_size(&frame));
	note(13, bpf_dynptr_clone(&frame, &clone));
	note(14, bpf_dynptr_clone(&null, &other));
	note(15, bpf_dynptr_adjust(&clone, word >> 8 & 15, word >> 4 & 31));
	note(16, bpf_dynptr_adjust(&clone, 1, 0));
	note(17, bpf_dynptr_adjust(&clone, 0, 0x80000000));
	note(18, bpf_dynptr_adjust(&null, 0, 0));
	note(19, bpf_dynptr_size(&clone) + bpf_dynptr_is_null(&other));
	note(20, bytes_of(bpf_dynptr_slice(&clone, 0, buffer, 14)));
	bytes = bpf_dynptr_slice_rdwr(&frame, 1, NULL, 14);
	if (bytes)
		bytes[word & 7] ^= 0x55;
	note(21, bytes_of(bpf_dynptr_slice_rdwr(&null, 0, buffer, 14)));
	return XDP_TX;
}
