"""The structs of native/ports/dpdk.h, once more in Python; a test holds sizes and offsets against the C header."""

import ctypes
from typing import Final

PORTS: Final = 32  # UXDP_DPDK_PORTS
NAME_BYTES: Final = 64  # UXDP_DPDK_NAME_BYTES
XSTATS: Final = 256  # UXDP_DPDK_XSTATS
ERROR_BYTES: Final = 256  # UXDP_DPDK_ERROR_BYTES
WHOLE_BYTES: Final = 0x12000  # UXDP_DPDK_WHOLE_BYTES: where a frame of several mbufs is put together
BURST: Final = 128  # UXDP_DPDK_BURST
POWERS: Final = ("poll", "pause", "interrupt")  # enum uxdp_power


class Xstat(ctypes.Structure):
    """``struct uxdp_dpdk_xstat``: what a driver counts, by its own name."""

    _fields_ = (("name", ctypes.c_char * NAME_BYTES), ("value", ctypes.c_uint64))


class PortState(ctypes.Structure):
    """``struct uxdp_dpdk_state``: what is seen of a port now and then, in shared memory."""

    _fields_ = (
        ("link_up", ctypes.c_uint32),
        ("link_mbps", ctypes.c_uint32),
        ("link_full_duplex", ctypes.c_uint32),
        ("num_xstats", ctypes.c_uint32),
        ("observed", ctypes.c_uint64),
        ("closed", ctypes.c_uint64),
        ("mbufs", ctypes.c_uint64),
        ("mbufs_free", ctypes.c_uint64),
        ("rx_frames", ctypes.c_uint64),
        ("tx_frames", ctypes.c_uint64),
        ("rx_bytes", ctypes.c_uint64),
        ("tx_bytes", ctypes.c_uint64),
        ("rx_missed", ctypes.c_uint64),
        ("rx_errors", ctypes.c_uint64),
        ("tx_errors", ctypes.c_uint64),
        ("rx_no_mbuf", ctypes.c_uint64),
        ("xstats", Xstat * XSTATS),
    )


class DpdkPort(ctypes.Structure):
    """``struct uxdp_dpdk_port``: how a port is to be opened, and what it turned out to be."""

    _fields_ = (
        ("name", ctypes.c_char * NAME_BYTES),
        ("num_queues", ctypes.c_uint32),
        ("num_mbufs", ctypes.c_uint32),
        ("chunk_bytes", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("multi_buffer", ctypes.c_uint32),
        ("rx_interrupts", ctypes.c_uint32),
        ("is_alone", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
        ("state", ctypes.c_uint64),
        ("port_id", ctypes.c_uint32),
        ("kernel_ifindex", ctypes.c_uint32),
        ("socket", ctypes.c_int32),
        ("num_descriptors", ctypes.c_uint32),
        ("can_chain", ctypes.c_uint32),
        ("mtu", ctypes.c_uint32),
        ("is_open", ctypes.c_uint32),
        ("is_started", ctypes.c_uint32),
        ("mac", ctypes.c_uint8 * 8),
        ("driver", ctypes.c_char * NAME_BYTES),
        ("error", ctypes.c_char * ERROR_BYTES),
        ("pool", ctypes.c_uint64),
        ("tx_locks", ctypes.c_uint64),
        ("timestamp_at", ctypes.c_uint64),
        ("timestamp_flag", ctypes.c_uint64),
    )


class DpdkQueue(ctypes.Structure):
    """``struct uxdp_dpdk_queue``: everything that the thread of one RX queue works with."""

    _fields_ = (
        ("state", ctypes.c_uint64),
        ("samples", ctypes.c_uint64),
        ("maps", ctypes.c_uint64),
        ("worker", ctypes.c_uint64),
        ("ports", ctypes.c_uint64),
        ("rings", ctypes.c_uint64),
        ("whole", ctypes.c_uint64),
        ("run", ctypes.c_uint64),
        ("run_mbufs", ctypes.c_uint64),
        ("find_target", ctypes.c_uint64),
        ("next_device", ctypes.c_uint64),
        ("num_ports", ctypes.c_uint32),
        ("port", ctypes.c_uint32),
        ("queue_id", ctypes.c_uint32),
        ("number", ctypes.c_uint32),
        ("num_workers", ctypes.c_uint32),
        ("num_maps", ctypes.c_uint32),
        ("sample_in", ctypes.c_uint32),
        ("stop", ctypes.c_uint32),
        ("tail_bytes", ctypes.c_uint32),
        ("power", ctypes.c_uint32),
        ("wants_metadata", ctypes.c_uint32),
        ("asks_for_room", ctypes.c_uint32),
        ("is_written_elsewhere", ctypes.c_uint32),
        ("stack_fd", ctypes.c_int32),
        ("inject_fd", ctypes.c_int32),
        ("wake_fd", ctypes.c_int32),
        ("slots", ctypes.c_uint64),
        ("cursor", ctypes.c_uint64),
        ("injected", ctypes.c_uint64),
    )
