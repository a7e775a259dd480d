"""The structs of native/abi.h, once more in Python; a test holds sizes and offsets against the C header."""

import ctypes
from typing import Final

HEADROOM: Final = 256  # UXDP_HEADROOM: XDP_PACKET_HEADROOM, include/uapi/linux/bpf.h
TAIL_CALL_LIMIT: Final = 33  # UXDP_TAIL_CALL_LIMIT: MAX_TAIL_CALL_CNT, include/linux/bpf.h

REDIRECT_NONE: Final = 0
REDIRECT_IFINDEX: Final = 1
REDIRECT_MAP: Final = 2


class Frame(ctypes.Structure):
    """``struct uxdp_frame``: the native xdp_md of one frame, and what helpers keep behind it."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("data_end", ctypes.c_uint64),
        ("data_meta", ctypes.c_uint64),
        ("ingress_ifindex", ctypes.c_uint32),
        ("rx_queue_index", ctypes.c_uint32),
        ("egress_ifindex", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("hard_start", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("redirect_kind", ctypes.c_uint32),
        ("redirect_map", ctypes.c_uint32),
        ("redirect_flags", ctypes.c_uint64),
        ("redirect_target", ctypes.c_uint64),
        ("redirect_key", ctypes.c_uint32),
        ("tail_calls", ctypes.c_uint32),
    )


class Range(ctypes.Structure):
    """``struct uxdp_range``: memory from one address to another, which is excluded."""

    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64))


class RxMetadata(ctypes.Structure):
    """``struct uxdp_rx_metadata``: what hardware says of one frame."""

    _fields_ = (
        ("timestamp_ns", ctypes.c_uint64),
        ("hash", ctypes.c_uint32),
        ("hash_type", ctypes.c_uint32),
        ("vlan_proto", ctypes.c_uint16),
        ("vlan_tci", ctypes.c_uint16),
        ("timestamp_error", ctypes.c_int16),
        ("hash_error", ctypes.c_int16),
        ("vlan_error", ctypes.c_int16),
        ("mark", ctypes.c_uint16 * 3),
    )


class Map(ctypes.Structure):
    """``struct uxdp_map``: a map's definition and where its memory is."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("num_cpus", ctypes.c_uint32),
        ("inner", ctypes.c_uint16),
        ("extra", ctypes.c_uint16),
        ("store", ctypes.c_uint64),
        ("cpu_store", ctypes.c_uint64),
    )


class Worker(ctypes.Structure):
    """``struct uxdp_worker``: what belongs to one worker thread."""

    _fields_ = (
        ("cpu", ctypes.c_uint32),
        ("num_cpus", ctypes.c_uint32),
        ("prng", ctypes.c_uint64 * 4),
        ("now_ns", ctypes.c_uint64),
        ("jiffies_hz", ctypes.c_uint64),
        ("trace_fd", ctypes.c_uint64),
        ("frame", ctypes.c_uint64),
        ("clock_fresh", ctypes.c_uint64),
        ("clock_ticks", ctypes.c_uint64),
        ("clock_ns", ctypes.c_uint64),
        ("clock_rate", ctypes.c_uint64),
        ("clock_base_ticks", ctypes.c_uint64),
        ("clock_base_ns", ctypes.c_uint64),
        ("clock_last", ctypes.c_uint64),
        ("rx_metadata", ctypes.c_uint64),
        ("burst", ctypes.c_uint64),
        ("memory", ctypes.c_uint64),
        ("num_memory", ctypes.c_uint64),
        ("stack_top", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint64),
        ("timers", ctypes.c_uint64),
        ("next_timer_ns", ctypes.c_uint64),
        ("in_timer", ctypes.c_uint64),
        ("runs_onward", ctypes.c_uint64),
        ("clock_frames", ctypes.c_uint32),
        ("clock_share", ctypes.c_uint32),
        ("clock_read_ns", ctypes.c_uint64),
    )
