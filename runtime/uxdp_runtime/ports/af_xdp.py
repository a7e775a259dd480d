"""AF_XDP sockets by raw system calls: one socket for one RX queue of one interface.

What one has to know:

- The UMEM is memory that the kernel pins, cut into chunks. The first socket registers it; further ones bind to it with
  XDP_SHARED_UMEM, each with fill and completion rings of its own, as they are for other queues or interfaces. Each
  queue here owns a range of the chunks, so no two threads ever share one.
- The rings are mapped from the socket's descriptor at fixed offsets; who maps them again, in another process that was
  given the descriptor, sees the same rings. So sockets outlive the process that serves them as long as another one
  holds the descriptor.
- A queue that was given up is busy for some 25 ms more, until the kernel has let go of it; another owner answers the
  same EBUSY. So binding is tried again for a while.
- Zero-copy is asked for first; a driver without it says EOPNOTSUPP, and frames are copied. Which it is can be seen
  (XDP_OPTIONS), and is told.

References: Documentation/networking/af_xdp.rst; include/uapi/linux/if_xdp.h; net/xdp/xsk.c
"""

import ctypes
import dataclasses
import errno
import mmap
import os
import resource
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final, Self

from ..errors import PortError, errno_text
from .af_xdp_abi import Ring
from .queue_owner import describe_holders, describe_owner

AF_XDP: Final = 44  # include/linux/socket.h; Python has no name for it
SOL_XDP: Final = 283
_MMAP_OFFSETS, _RX_RING, _TX_RING, _UMEM_REG, _FILL_RING, _COMPLETION_RING, _STATISTICS, _OPTIONS = range(1, 9)
_PGOFF_RX: Final = 0
_PGOFF_TX: Final = 0x80000000
_PGOFF_FILL: Final = 0x100000000
_PGOFF_COMPLETION: Final = 0x180000000
_OPTIONS_ZEROCOPY: Final = 1
# sxdp_flags
_SHARED_UMEM, _COPY, _ZEROCOPY, _USE_NEED_WAKEUP, _USE_SG = 1, 2, 4, 8, 16
_UMEM = struct.Struct("=QQIIIIQ")  # addr, len, chunk_size, headroom, flags, tx_metadata_len
_ADDRESS = struct.Struct("=HHIII")  # family, flags, ifindex, queue_id, shared_umem_fd
_OFFSETS = struct.Struct("=16Q")  # producer, consumer, desc, flags of rx, tx, fill, completion
_DESCRIPTOR_BYTES: Final = 16  # struct xdp_desc
_ADDRESS_BYTES: Final = 8
_SO_PREFER_BUSY_POLL, _SO_BUSY_POLL, _SO_BUSY_POLL_BUDGET = 69, 46, 70
_BUSY_POLL_US: Final = 20
_BUSY_POLL_BUDGET: Final = 64
_BIND_SECONDS: Final = 1.0
_BIND_PAUSE_SECONDS: Final = 0.005
_libc = ctypes.CDLL(None, use_errno=True)

_PROTECTION: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_POPULATE: Final = 0x8000


@dataclass(frozen=True, slots=True)
class RingSizes:
    """Entries of the four rings; powers of two."""

    rx: int = 2048
    tx: int = 2048
    fill: int = 4096
    completion: int = 4096


@dataclass(frozen=True, slots=True)
class Statistics:
    """``struct xdp_statistics``: what the kernel dropped before anybody saw it, since the socket was made."""

    rx_dropped: int
    rx_invalid: int
    tx_invalid: int
    rx_ring_full: int
    rx_fill_ring_empty: int
    tx_ring_empty: int

    def as_counters(self) -> dict[str, int]:
        """Return them by name."""
        return dataclasses.asdict(self)


class XdpSocket:
    """One AF_XDP socket. Close it, or use it as a context manager; its descriptor may be inherited or sent."""

    def __init__(self, sizes: RingSizes, fd: int | None = None) -> None:
        """Make a socket, or take over one by its descriptor, which is owned from then on.

        :raises PortError: EPERM without CAP_NET_RAW, EAFNOSUPPORT without CONFIG_XDP_SOCKETS
        """
        self.sizes = sizes
        try:
            self._socket = socket.socket(AF_XDP, socket.SOCK_RAW, 0, fileno=fd)
        except OSError as cause:
            raise _port_error(cause, "socket(AF_XDP)") from cause
        self._maps: list[mmap.mmap] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; mappings go with the last reference to them."""
        self._socket.close()

    @property
    def fd(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def register_umem(self, address: int, size_bytes: int, chunk_bytes: int) -> None:
        """Register the UMEM, which must stay mapped as long as any socket of it is open.

        :raises PortError: ENOBUFS if RLIMIT_MEMLOCK is too low for it
        """
        _soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        what = f"{size_bytes >> 10} KiB of memory for frames cannot be locked: XDP_UMEM_REG"
        self._set(_UMEM_REG, _UMEM.pack(address, size_bytes, chunk_bytes, 0, 0, 0, 0), what)

    def make_rings(self) -> None:
        """Make all four rings."""
        sizes = self.sizes
        for option, size, name in (
            (_RX_RING, sizes.rx, "XDP_RX_RING"),
            (_TX_RING, sizes.tx, "XDP_TX_RING"),
            (_FILL_RING, sizes.fill, "XDP_UMEM_FILL_RING"),
            (_COMPLETION_RING, sizes.completion, "XDP_UMEM_COMPLETION_RING"),
        ):
            self._set(option, struct.pack("=I", size), name)

    def map_rings(self) -> tuple[Ring, Ring, Ring, Ring]:
        """Map the rings into this process: rx, tx, fill, completion. They stay mapped as long as this object lives."""
        offsets = _OFFSETS.unpack(self._socket.getsockopt(SOL_XDP, _MMAP_OFFSETS, _OFFSETS.size))
        sizes = self.sizes
        kinds = (
            (_PGOFF_RX, sizes.rx, _DESCRIPTOR_BYTES),
            (_PGOFF_TX, sizes.tx, _DESCRIPTOR_BYTES),
            (_PGOFF_FILL, sizes.fill, _ADDRESS_BYTES),
            (_PGOFF_COMPLETION, sizes.completion, _ADDRESS_BYTES),
        )
        rings = [
            self._map(page_offset, size, entry_bytes, offsets[4 * number : 4 * number + 4])
            for number, (page_offset, size, entry_bytes) in enumerate(kinds)
        ]
        rx, tx, fill, completion = rings
        return rx, tx, fill, completion

    def bind(
        self,
        ifindex: int,
        queue_id: int,
        *,
        shared_fd: int | None = None,
        zero_copy: bool = False,
        multi_buffer: bool = False,
    ) -> None:
        """Bind to one RX queue. The fill ring must hold chunks, or nothing arrives.

        :param ifindex: interface index, >= 1
        :param queue_id: 0-based RX queue, as in ``ethtool -x``
        :param shared_fd: the socket that registered the UMEM, if it is another one
        :param zero_copy: let the driver use the UMEM itself
        :param multi_buffer: take frames of several buffers; a shared UMEM's first socket decides for all (Linux 6.6)
        :raises PortError: EBUSY if another socket owns the queue (after a second of trying), EOPNOTSUPP if the driver
            has no zero-copy, EINVAL if there is no such queue, ENODEV if there is no such interface, ENETDOWN if it is
            down
        Source: Documentation/networking/af_xdp.rst, "bind"
        """
        flags = _USE_NEED_WAKEUP | (_ZEROCOPY if zero_copy else _COPY) | (_USE_SG if multi_buffer else 0)
        if shared_fd is not None:
            flags = _SHARED_UMEM
        address = _ADDRESS.pack(AF_XDP, flags, ifindex, queue_id, shared_fd if shared_fd is not None else 0)
        deadline = time.monotonic() + _BIND_SECONDS
        while _libc.bind(self.fd, address, len(address)) != 0:
            number = ctypes.get_errno()
            if number != errno.EBUSY or time.monotonic() > deadline:
                raise _bind_error(number, ifindex, queue_id)
            time.sleep(_BIND_PAUSE_SECONDS)

    def is_zero_copy(self) -> bool:
        """Return whether the driver writes into the UMEM itself."""
        (flags,) = struct.unpack("=I", self._socket.getsockopt(SOL_XDP, _OPTIONS, 4))
        return bool(flags & _OPTIONS_ZEROCOPY)

    def prefer_busy_poll(self) -> None:
        """Let this socket's system calls do the work of the interface's interrupts.

        Source: Documentation/networking/af_xdp.rst, Documentation/networking/napi.rst, "Busy polling"
        """
        for option, value in (
            (_SO_PREFER_BUSY_POLL, 1),
            (_SO_BUSY_POLL, _BUSY_POLL_US),
            (_SO_BUSY_POLL_BUDGET, _BUSY_POLL_BUDGET),
        ):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, value)
            except OSError as cause:
                raise _port_error(cause, "busy polling") from cause

    def statistics(self) -> Statistics:
        """Return what the kernel counted."""
        raw = self._socket.getsockopt(SOL_XDP, _STATISTICS, 48)
        return Statistics(*struct.unpack("=6Q", raw.ljust(48, b"\0")))

    def _set(self, option: int, value: bytes, name: str) -> None:
        try:
            self._socket.setsockopt(SOL_XDP, option, value)
        except OSError as cause:
            raise _port_error(cause, name) from cause

    def _map(self, page_offset: int, size: int, entry_bytes: int, offsets: tuple[int, ...]) -> Ring:
        producer, consumer, descriptors, flags = offsets
        length = descriptors + size * entry_bytes
        memory = mmap.mmap(self.fd, length, flags=mmap.MAP_SHARED | _MAP_POPULATE, prot=_PROTECTION, offset=page_offset)
        self._maps.append(memory)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return Ring(
            producer=base + producer,
            consumer=base + consumer,
            flags=base + flags,
            descriptors=base + descriptors,
            mask=size - 1,
        )


def _bind_error(number: int, ifindex: int, queue_id: int) -> PortError:
    reason, remedy = errno_text(number), ""
    if number == errno.EBUSY:
        owner = describe_owner(ifindex, queue_id)
        holders = "" if owner else describe_holders()
        reason = f"it belongs to the AF_XDP socket of {owner}" if owner else "it belongs to another AF_XDP socket"
        reason += f"; such sockets has {holders}" if holders else ""
        remedy = "stop that process, or serve other queues: --queues"
    return PortError(number, f"queue {queue_id} cannot be had: {reason}", remedy=remedy)


def _port_error(cause: OSError, what: str) -> PortError:
    number = cause.errno or errno.EIO
    remedy = ""
    if number == errno.ENOBUFS:
        limit, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        remedy = f"raise the memlock limit, which is {limit >> 10} KiB (ulimit -l), or use fewer queues or chunks"
    elif number == errno.EPERM:
        remedy = "CAP_NET_RAW is needed: run as root"
    elif number == errno.EAFNOSUPPORT:
        remedy = "use a kernel built with CONFIG_XDP_SOCKETS=y"
    return PortError(number, f"{what}: {os.strerror(number)}", remedy=remedy)
