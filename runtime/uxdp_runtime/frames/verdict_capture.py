"""Write pcapng files of frames with their verdicts, while they go on being made: whole blocks only, or none.

A packet's verdict is in its option ``epb_verdict``, as an XDP action (type 2), its queue in ``epb_queue``; a comment
says both for people: Wireshark shows it as frame.comment.

dpkt lays out the blocks. The file is written to directly: what is there is whole whenever somebody looks, and a disk
that is full leaves no half of a block behind.

Reference: draft-ietf-opsawg-pcapng, 4.3 "Enhanced Packet Block"
"""

import os
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Self

import dpkt.pcapng

from .capture import LINKTYPE_ETHERNET, MAX_PACKET_BYTES, CaptureError
from .judged_frame import JudgedFrame

_OPTION_COMMENT, _OPTION_IF_NAME, _OPTION_EPB_QUEUE, _OPTION_EPB_VERDICT = 1, 2, 6, 7
_NANOSECOND_RESOLUTION: Final = b"\x09"  # if_tsresol: 10**-9
_VERDICT_OF_XDP: Final = 2  # epb_verdict's first byte; the action follows in 64 bits
_ORIGINAL_LENGTH_AT: Final = 24  # in an enhanced packet block, which dpkt takes for the captured length
_IS_LITTLE: Final = sys.byteorder == "little"  # blocks are in the machine's byte order
_Option: Final = dpkt.pcapng.PcapngOptionLE if _IS_LITTLE else dpkt.pcapng.PcapngOption
_Section: Final = dpkt.pcapng.SectionHeaderBlockLE if _IS_LITTLE else dpkt.pcapng.SectionHeaderBlock
_Interface: Final = dpkt.pcapng.InterfaceDescriptionBlockLE if _IS_LITTLE else dpkt.pcapng.InterfaceDescriptionBlock
_Packet: Final = dpkt.pcapng.EnhancedPacketBlockLE if _IS_LITTLE else dpkt.pcapng.EnhancedPacketBlock


class VerdictCapture:
    """A capture file that is being made. Close it, or use it as a context manager."""

    def __init__(self, path: str | Path, interfaces: Sequence[str]) -> None:
        """Create the file, or overwrite it; only its owner may read it.

        :param path: ends in .pcapng, which alone has room for verdicts
        :param interfaces: their names
        :raises CaptureError: another ending, or the file cannot be written
        """
        self.path = str(path)
        self._fd = -1
        self._size = 0
        if Path(path).suffix.lower() != ".pcapng":
            raise CaptureError(
                "a capture with verdicts is called .pcapng", path=self.path, remedy=f"write to {path}.pcapng"
            )
        try:
            # Not to wait for the reader of a FIFO.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(path, flags, 0o600)
        except OSError as cause:
            raise self._failed(cause) from cause
        try:
            self._append(bytes(_Section()) + b"".join(_interface(name) for name in interfaces))
        except CaptureError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def write(self, frames: Iterable[JudgedFrame]) -> None:
        """Append frames, all of them or none.

        :raises CaptureError: the file cannot be written
        """
        data = b"".join(map(_packet, frames))
        if data:
            self._append(data)

    def close(self) -> None:
        """Close the file; there is nothing to be written any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as cause:
            self._cut()
            raise self._failed(cause) from cause
        self._size += len(data)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
        except OSError:
            return  # no regular file; there is nothing to mend

    def _failed(self, cause: OSError) -> CaptureError:
        return CaptureError(f"cannot be written: {cause.strerror or cause}", path=self.path)


def _interface(name: str) -> bytes:
    options = [
        _Option(code=_OPTION_IF_NAME, data=name.encode()),
        _Option(code=dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL, data=_NANOSECOND_RESOLUTION),
        _Option(),
    ]
    return bytes(_Interface(linktype=LINKTYPE_ETHERNET, snaplen=MAX_PACKET_BYTES, opts=options))


def _packet(frame: JudgedFrame) -> bytes:
    name = _VERDICTS[frame.verdict] if frame.verdict < len(_VERDICTS) else f"{_VERDICTS[0]} (returned {frame.verdict})"
    options: list[Any] = [
        _Option(code=_OPTION_COMMENT, data=f"{name}, queue {frame.queue_id}".encode()),
        _Option(code=_OPTION_EPB_QUEUE, data=struct.pack("=I", frame.queue_id)),
        _Option(code=_OPTION_EPB_VERDICT, data=struct.pack("=BQ", _VERDICT_OF_XDP, frame.verdict)),
        _Option(),
    ]
    block = bytearray(
        bytes(
            _Packet(
                iface_id=frame.interface,
                ts_high=frame.timestamp_ns >> 32,
                ts_low=frame.timestamp_ns & 0xFFFFFFFF,
                pkt_data=frame.data,
                opts=options,
            )
        )
    )
    struct.pack_into("=I", block, _ORIGINAL_LENGTH_AT, frame.len_bytes)
    return bytes(block)


_VERDICTS: Final = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
