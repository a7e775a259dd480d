/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The whole native library as one translation unit, from which the bitcode is made. */
#include "helpers/checksum.c"
#include "helpers/control_flow.c"
#include "helpers/map.c"
#include "helpers/redirect.c"
#include "helpers/ringbuf.c"
#include "helpers/time.c"
#include "helpers/trace.c"
#include "helpers/xdp.c"
#include "control.c"
#include "run.c"
#include "bench.c"
