/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
#include "memory.h"

void uxdp_run(struct uxdp_frame *frames, u32 n)
{
	uxdp_worker.clock_fresh = 0;
	for (u32 i = 0; i < n; i++) {
		struct uxdp_frame *frame = &frames[i];

		frame->redirect_kind = UXDP_REDIRECT_NONE;
		frame->redirect_map = 0;
		frame->redirect_flags = 0;
		frame->redirect_target = 0;
		frame->redirect_key = 0;
		uxdp_worker.frame = frame;
		frame->tail_calls = UXDP_TAIL_CALL_LIMIT;
		frame->verdict = uxdp_program(frame);
	}
}
