"""Read what programs write into a PERF_EVENT_ARRAY of the kernel: one event and one ring for each CPU.

The ring of an event is mapped behind a page that holds its positions (struct perf_event_mmap_page). A record is a
header (type u32, misc u16, size u16), and of a sample a length (u32) and the bytes; the length counts what they are
filled up with so that the record is a multiple of 8 bytes, and nobody says what that is.

References: include/uapi/linux/perf_event.h; kernel/events/ring_buffer.c
"""

import ctypes
import errno
import mmap
import os
import platform
import struct
from contextlib import ExitStack, suppress
from typing import Final, Self

from ..errors import BpfError, errno_text
from .cpus import num_possible_cpus
from .maps import Map

_SYSCALL: Final = {"x86_64": 298, "aarch64": 241}  # __NR_perf_event_open
_PERF_TYPE_SOFTWARE: Final = 1
_PERF_COUNT_SW_BPF_OUTPUT: Final = 10
_PERF_SAMPLE_RAW: Final = 1 << 10
_PERF_FLAG_FD_CLOEXEC: Final = 1 << 3
_PERF_RECORD_SAMPLE: Final = 9
# struct perf_event_attr of PERF_ATTR_SIZE_VER0: type, size, config, sample_period, sample_type, read_format, bits,
# wakeup_events, bp_type, config1.
_ATTRIBUTES: Final = struct.Struct("=IIQQQQQIIQ")
_HEAD: Final = 1024  # offsetof(struct perf_event_mmap_page, data_head); data_tail follows
_POSITION: Final = struct.Struct("=Q")
_HEADER: Final = struct.Struct("=IHH")
_LENGTH: Final = struct.Struct("=I")
_PAGES: Final = 256


class PerfBuffer:
    """The reading side of a map. Close it, or use it as a context manager."""

    def __init__(self, table: Map) -> None:
        """Open an event for each CPU that is online, and put it into the map under the CPU's number.

        :raises BpfError: no such map, or the kernel lets this process open none
        """
        self._rings: list[mmap.mmap] = []
        with ExitStack() as stack:
            for cpu in range(min(num_possible_cpus(), table.info.max_entries)):
                try:
                    fd = _open_event(cpu)
                except BpfError as refused:
                    if refused.errno == errno.ENODEV:
                        continue
                    raise
                stack.callback(os.close, fd)
                try:
                    ring = mmap.mmap(fd, (1 + _PAGES) * mmap.PAGESIZE, flags=mmap.MAP_SHARED)
                except OSError as cause:
                    number = cause.errno or 0
                    raise BpfError(number, f"mmap: {errno_text(number)}", context=f"map {table.name}") from cause
                self._rings.append(stack.enter_context(ring))
                key = struct.pack("=I", cpu)
                table.update(key, struct.pack("=i", fd))
                stack.callback(_remove, table, key)
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the events out of the map, and close them."""
        self._resources.close()

    def take(self) -> list[bytes]:
        """Return the samples that were written since the last call, CPU by CPU, with what they are filled up with."""
        return [sample for ring in self._rings for sample in _taken(ring)]


def _taken(ring: mmap.mmap) -> list[bytes]:
    head, tail = (_POSITION.unpack_from(ring, _HEAD + at)[0] for at in (0, _POSITION.size))
    size = _PAGES * mmap.PAGESIZE
    samples = []
    while tail < head:
        start = tail % size
        kind, _misc, length = _HEADER.unpack(_piece(ring, start, _HEADER.size))
        record = _piece(ring, start, length)
        if kind == _PERF_RECORD_SAMPLE:
            (raw,) = _LENGTH.unpack_from(record, _HEADER.size)
            samples.append(record[_HEADER.size + _LENGTH.size :][:raw])
        tail += length
    _POSITION.pack_into(ring, _HEAD + _POSITION.size, tail)
    return samples


def _piece(ring: mmap.mmap, start: int, length: int) -> bytes:
    """Return bytes of the ring, which may go on at its beginning."""
    end = _PAGES * mmap.PAGESIZE
    first = min(length, end - start)
    base = mmap.PAGESIZE
    return ring[base + start : base + start + first] + ring[base : base + length - first]


def _remove(table: Map, key: bytes) -> None:
    with suppress(BpfError):
        table.delete(key)


def _open_event(cpu: int) -> int:
    attributes = _ATTRIBUTES.pack(
        *(_PERF_TYPE_SOFTWARE, _ATTRIBUTES.size, _PERF_COUNT_SW_BPF_OUTPUT, 1, _PERF_SAMPLE_RAW, 0, 0, 1, 0, 0)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    # Every process (-1), one CPU, no group (-1).
    fd = libc.syscall(_SYSCALL[platform.machine()], attributes, -1, cpu, -1, _PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        number = ctypes.get_errno()
        raise BpfError(number, f"perf_event_open: {errno_text(number)}", context=f"CPU {cpu}")
    return int(fd)
