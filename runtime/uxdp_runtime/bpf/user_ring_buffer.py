"""Fill the kernel's user ring buffers: records that programs take out with bpf_user_ringbuf_drain.

A user ring buffer is mapped like a ring buffer, the other way round: the consumer's position cannot be written, the
producer's and the ring can. Reference: kernel/bpf/ringbuf.c, ringbuf_map_mmap_user()
"""

import errno
import mmap
import os
import struct
from collections.abc import Iterable
from typing import Final

from ..errors import BpfError, errno_text

_POSITION: Final = struct.Struct("=Q")
_HEADER: Final = struct.Struct("=II")
_ALIGNMENT: Final = 8


def produce(fd: int, size: int, records: Iterable[bytes], name: str) -> None:
    """Add records to a user ring buffer.

    :param fd: the map's descriptor
    :param size: of the ring, max_entries
    :param name: of the map, for errors
    :raises BpfError: E2BIG if it can never hold a record, ENOSPC if it is full; those before are in it
    """
    try:
        consumer = mmap.mmap(fd, mmap.PAGESIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        ring = mmap.mmap(fd, mmap.PAGESIZE + 2 * size, flags=mmap.MAP_SHARED, offset=mmap.PAGESIZE)
    except OSError as cause:
        number = cause.errno or 0
        raise BpfError(number, f"mmap: {errno_text(number)}", context=f"map {name}") from cause
    with consumer, ring:
        for record in records:
            (taken,), (made,) = _POSITION.unpack_from(consumer), _POSITION.unpack_from(ring)
            length = _HEADER.size + len(record)
            length += -length % _ALIGNMENT
            if length > size or length > size - (made - taken):
                number = errno.E2BIG if length > size else errno.ENOSPC
                raise BpfError(number, os.strerror(number), context=f"map {name}")
            at = mmap.PAGESIZE + made % size
            ring[at : at + _HEADER.size] = _HEADER.pack(len(record), 0)
            ring[at + _HEADER.size : at + _HEADER.size + len(record)] = record
            _POSITION.pack_into(ring, 0, made + length)
