"""The structs of native/ports/af_xdp.h, once more in Python; a test holds sizes and offsets against the C header."""

import ctypes
from typing import Final

RX_BURST: Final = 64  # UXDP_RX_BURST
INJECTED_BYTES: Final = 3400  # UXDP_INJECTED_BYTES: the longest frame that can be passed or redirected
WHOLE_BYTES: Final = 0x12000  # UXDP_WHOLE_BYTES: where a frame of several buffers is put together
TX_METHODS: Final = ("auto", "ring", "live")  # enum uxdp_tx_method


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
        ("fill_calm", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
        ("samples", ctypes.c_uint64),
        ("maps", ctypes.c_uint64),
        ("whole", ctypes.c_uint64),
        ("run", ctypes.c_uint64),
        ("next_timer_ns", ctypes.c_uint64),
        ("asking", ctypes.c_uint64),
    )
