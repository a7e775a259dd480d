/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs and their loader share. */
#ifndef SHARED_H
#define SHARED_H

enum counter { COUNTER_FRAMES, COUNTER_BYTES, NUM_COUNTERS };

#endif
