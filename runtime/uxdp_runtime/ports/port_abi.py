"""The structs of native/ports/port.h, which every port has, once more in Python; a test compares."""

import ctypes
from typing import Final

LATENCY_BUCKETS: Final = 32  # UXDP_LATENCY_BUCKETS
SAMPLES: Final = 512  # UXDP_SAMPLES: for each queue
SAMPLE_BYTES: Final = 4096  # UXDP_SAMPLE_BYTES
NUM_VERDICTS: Final = 5  # enum xdp_action

# enum uxdp_loss, and what people are told.
LOSSES: Final = (
    *("tx_ring_full", "inject_failed", "refused", "too_long", "no_target", "bad_descriptor", "fragmented", "ended"),
    *("no_stack", "no_buffer", "cpu_ring_full"),
)
STOP_NOW, STOP_DRAINED = 1, 2  # enum uxdp_stop


class QueueState(ctypes.Structure):
    """``struct uxdp_queue_state`` without the owners of chunks, a byte each, which follow it."""

    _fields_ = (
        ("rx_frames", ctypes.c_uint64),
        ("rx_bytes", ctypes.c_uint64),
        ("verdict_frames", ctypes.c_uint64 * NUM_VERDICTS),
        ("verdict_bytes", ctypes.c_uint64 * NUM_VERDICTS),
        ("lost", ctypes.c_uint64 * len(LOSSES)),
        ("tx_by_ring", ctypes.c_uint64),
        ("tx_by_injection", ctypes.c_uint64),
        ("broadcast_frames", ctypes.c_uint64),
        ("inject_calls", ctypes.c_uint64),
        ("inject_stalls", ctypes.c_uint64),
        ("polls", ctypes.c_uint64),
        ("bursts", ctypes.c_uint64),
        ("busy_ns", ctypes.c_uint64),
        ("stack_frames", ctypes.c_uint64),
        ("stack_lost", ctypes.c_uint64),
        ("cpumap_lost", ctypes.c_uint64),
        ("latency", ctypes.c_uint64 * LATENCY_BUCKETS),
        ("heartbeat_ns", ctypes.c_uint64),
        ("fill_from", ctypes.c_uint32),
        ("fill_pending", ctypes.c_uint32),
        ("tx_from", ctypes.c_uint32),
        ("tx_pending", ctypes.c_uint32),
        ("num_chunks", ctypes.c_uint32),
        ("injection_refused", ctypes.c_uint32),
        ("gone", ctypes.c_uint32),
        ("injection_taken", ctypes.c_uint32),
    )


class Sample(ctypes.Structure):
    """``struct uxdp_sample``: a copy of a frame as the program left it."""

    _fields_ = (
        ("time_ns", ctypes.c_uint64),
        ("len", ctypes.c_uint32),
        ("captured", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
        ("data", ctypes.c_uint8 * (SAMPLE_BYTES - 24)),
    )


class Samples(ctypes.Structure):
    """``struct uxdp_samples``: shared memory between a queue's thread and the control process."""

    _fields_ = (
        ("producer", ctypes.c_uint64),
        ("consumer", ctypes.c_uint64),
        ("missed", ctypes.c_uint64),
        ("every", ctypes.c_uint64),
        ("slots", Sample * SAMPLES),
    )
