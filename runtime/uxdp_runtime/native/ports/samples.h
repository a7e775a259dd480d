/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Samples: every so many frames a copy of one, as the program left it, with its verdict, for
 * whoever looks on. A queue's thread writes them into shared memory without a system call; the
 * control process takes them out a few times a second. Where it is too slow, samples are missed and
 * counted; frames are not.
 */
#ifndef UXDP_PORTS_SAMPLES_H
#define UXDP_PORTS_SAMPLES_H

#include "port.h"

#ifndef CLOCK_REALTIME
#define CLOCK_REALTIME 0
#endif

/* Whoever includes this has it: clock.h, or the C library. */
UXDP_INLINE u64 clock_ns(s32 clock);

UXDP_COLD void take_sample(struct uxdp_samples *samples, const struct uxdp_frame *frame)
{
	u64 producer = samples->producer, len = frame->data_end - frame->data;
	struct uxdp_sample *sample = &samples->slots[producer % UXDP_SAMPLES];

	if (producer - __atomic_load_n(&samples->consumer, __ATOMIC_ACQUIRE) >= UXDP_SAMPLES) {
		samples->missed++;
		return;
	}
	sample->time_ns = clock_ns(CLOCK_REALTIME);
	sample->len = len;
	sample->captured = len < UXDP_SAMPLE_DATA_BYTES ? len : UXDP_SAMPLE_DATA_BYTES;
	sample->verdict = frame->verdict;
	__builtin_memcpy(sample->data, (const void *)frame->data, sample->captured);
	__atomic_store_n(&samples->producer, producer + 1, __ATOMIC_RELEASE);
}

/* For the control process: how many samples were ever written, and that some were read. */
u64 uxdp_samples_written(const struct uxdp_samples *samples)
{
	return __atomic_load_n(&samples->producer, __ATOMIC_ACQUIRE);
}

void uxdp_samples_read(struct uxdp_samples *samples, u64 consumer)
{
	__atomic_store_n(&samples->consumer, consumer, __ATOMIC_RELEASE);
}

#endif
