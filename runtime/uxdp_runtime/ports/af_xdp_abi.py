"""The structs of native/ports/af_xdp.h, once more in Python; a test holds sizes and offsets against the C header."""

import ctypes
from typing import Final

RX_BURST: Final = 64  # UXDP_RX_BURST
PENDING: Final = 256  # UXDP_PENDING: slots of the injector
SLOT_BYTES: Final = 3520  # UXDP_SLOT_BYTES
INJECTED_BYTES: Final = 3400  # UXDP_INJECTED_BYTES: the longest frame that can be passed or redirected
WHOLE_BYTES: Final = 0x12000  # UXDP_WHOLE_BYTES: where a frame of several buffers is put together
LATENCY_BUCKETS: Final = 32  # UXDP_LATENCY_BUCKETS
SAMPLES: Final = 512  # UXDP_SAMPLES: for each queue
SAMPLE_BYTES: Final = 4096  # UXDP_SAMPLE_BYTES
NUM_VERDICTS: Final = 5  # enum xdp_action

# enum uxdp_loss, and what people are told.
LOSSES: Final = (
    *("tx_ring_full", "inject_failed", "refused", "too_long", "no_target", "bad_descriptor", "fragmented", "ended"),
)
# enum uxdp_tx_method
STOP_NOW, STOP_DRAINED = 1, 2  # enum uxdp_stop
TX_METHODS: Final = ("auto", "ring", "live")


class Ring(ctypes.Structure):
    """``struct uxdp_ring``: a ring that is shared with the kernel."""

    _fields_ = (
        ("producer", ctypes.c_uint64),
        ("consumer", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("descriptors", ctypes.c_uint64),
        ("mask", ctypes.c_uint32),
        ("cached_producer", ctypes.c_uint32),
        ("cached_consumer", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


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


class Queue(ctypes.Structure):
    """``struct uxdp_queue``: everything that the thread of one RX queue works with."""

    _fields_ = (
        ("rx", Ring),
        ("tx", Ring),
        ("fill", Ring),
        ("completion", Ring),
        ("state", ctypes.c_uint64),
        ("umem", ctypes.c_uint64),
        ("first_chunk", ctypes.c_uint64),
        ("chunk_bytes", ctypes.c_uint64),
        ("free", ctypes.c_uint64),
        ("num_free", ctypes.c_uint32),
        ("fd", ctypes.c_int32),
        ("wake_fd", ctypes.c_int32),
        ("inject_fd", ctypes.c_int32),
        ("slots", ctypes.c_uint64),
        ("cursor", ctypes.c_uint64),
        ("transmitted", ctypes.c_uint64),
        ("ifindex", ctypes.c_uint32),
        ("queue_id", ctypes.c_uint32),
        ("tx_method", ctypes.c_uint32),
        ("busy_poll", ctypes.c_uint32),
        ("stop", ctypes.c_uint32),
        ("tail_bytes", ctypes.c_uint32),
        ("num_maps", ctypes.c_uint32),
        ("sample_in", ctypes.c_uint32),
        ("samples", ctypes.c_uint64),
        ("maps", ctypes.c_uint64),
        ("whole", ctypes.c_uint64),
        ("run", ctypes.c_uint64),
    )
