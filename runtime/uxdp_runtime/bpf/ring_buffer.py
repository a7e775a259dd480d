"""Read the kernel's ring buffers: records of any length, from all programs and CPUs in one order, for one reader.

A ring buffer is mapped in two parts: the consumer's position, which the reader may write, and behind it the producer's
position and the ring, which it may not. The kernel maps the ring twice in a row, so that no record is torn. A record is
its length (u32, and two bits: busy while it is being written, discarded if it is to be skipped), four bytes of the
kernel's own, and its bytes, filled up to a multiple of 8. Positions only grow.

References: Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c
"""

import mmap
import struct
from contextlib import ExitStack
from typing import Final, Self

from ..errors import BpfError, errno_text
from .maps import Map

_POSITION: Final = struct.Struct("=Q")
_HEADER: Final = struct.Struct("=II")
_BUSY: Final = 1 << 31  # BPF_RINGBUF_BUSY_BIT
_DISCARDED: Final = 1 << 30  # BPF_RINGBUF_DISCARD_BIT
_ALIGNMENT: Final = 8


class RingBuffer:
    """The reading side of one ring buffer in the kernel. Close it, or use it as a context manager.

    The map's descriptor is borrowed, and needed no more once this exists.
    """

    def __init__(self, ring: Map) -> None:
        """Map a ring buffer's memory.

        :raises BpfError: not a ring buffer
        """
        self._size = ring.info.max_entries
        with ExitStack() as stack:
            try:
                self._consumer = stack.enter_context(mmap.mmap(ring.fd, mmap.PAGESIZE, flags=mmap.MAP_SHARED))
                self._ring = stack.enter_context(
                    mmap.mmap(
                        ring.fd,
                        mmap.PAGESIZE + 2 * self._size,
                        flags=mmap.MAP_SHARED,
                        prot=mmap.PROT_READ,
                        offset=mmap.PAGESIZE,
                    )
                )
            except OSError as cause:
                number = cause.errno or 0
                raise BpfError(number, f"mmap: {errno_text(number)}", context=f"map {ring.name}") from cause
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the ring buffer."""
        self._resources.close()

    def read(self, position: int) -> tuple[list[bytes], int]:
        """Return the records from a position on, and the position behind them; they stay in the ring.

        :param position: 0, or what this returned before
        """
        (end,) = _POSITION.unpack_from(self._ring)
        records: list[bytes] = []
        while position < end:
            at = mmap.PAGESIZE + position % self._size
            length, _page_offset = _HEADER.unpack_from(self._ring, at)
            if length & _BUSY:
                break
            size = length & ~_DISCARDED
            at += _HEADER.size
            if not length & _DISCARDED:
                records.append(self._ring[at : at + size])
            position += _HEADER.size + size + -size % _ALIGNMENT
        return records, position

    def release(self) -> None:
        """Give the kernel the room of all records back, read or not. No program may be writing one."""
        self._consumer[: _POSITION.size] = self._ring[: _POSITION.size]
