"""Write capture files: pcap or pcapng, Ethernet, times in nanoseconds, also gzipped.

dpkt writes the formats; frames go out as they come, none is kept.
"""

import gzip
import struct
import sys
from contextlib import ExitStack
from decimal import Decimal
from io import BufferedWriter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import dpkt.pcap
import dpkt.pcapng

from .capture import LINKTYPE_ETHERNET, MAX_PACKET_BYTES, CaptureError, CaptureReader

_NANOSECONDS: Final = 10**9
_NANOSECOND_RESOLUTION: Final = b"\x09"  # if_tsresol: 10**-9
_IS_LITTLE: Final = sys.byteorder == "little"  # dpkt writes the machine's byte order
_SUFFIXES: Final = (".pcap", ".cap", ".pcapng")


class CaptureWriter:
    """Write frames to a capture file of Ethernet with times in nanoseconds; its suffix says which format.

    After an error the frames written before may or may not be in the file.
    """

    def __init__(self, path: str | Path, *, reading: CaptureReader | None = None) -> None:
        """Create a file, or overwrite it: .pcap, .cap or .pcapng, and any of these with .gz.

        :param reading: the file that must not be overwritten, since it is still being read
        :raises CaptureError: another suffix, or the file cannot be written
        """
        self.path = str(path)
        self.frames = 0
        suffixes = [suffix.lower() for suffix in Path(path).suffixes]
        compressed = suffixes[-1:] == [".gz"]
        suffix = "".join(suffixes[-2:-1] if compressed else suffixes[-1:])
        if suffix not in _SUFFIXES:
            raise CaptureError(
                "a capture file is called .pcap, .cap or .pcapng, or that with .gz behind",
                path=self.path,
                remedy=f"write to {path}.pcap",
            )
        self._is_pcapng = suffix == ".pcapng"
        if reading is not None and self._is_same(reading):
            raise CaptureError("is being read", path=self.path, remedy="write to another file")
        with ExitStack() as stack:
            try:
                file: BufferedWriter | gzip.GzipFile = stack.enter_context(Path(path).open("wb"))
                if compressed:
                    file = stack.enter_context(gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0))
                self._writer = self._create(file)
            except OSError as cause:
                raise self._failed(cause) from cause
            self._resources = stack.pop_all()

    def write(self, data: bytes, timestamp_ns: int) -> None:
        """Append a frame; times need not ascend.

        :raises CaptureError: the file cannot be written, or the time does not fit the format
        """
        self.frames += 1
        try:
            if self._is_pcapng:
                packet = dpkt.pcapng.EnhancedPacketBlockLE if _IS_LITTLE else dpkt.pcapng.EnhancedPacketBlock
                high, low = timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF
                # dpkt takes a time of 0 in a block for a missing one and puts in the present, unless it is given.
                block = packet(ts_high=high, ts_low=low, pkt_data=data)
                self._writer.writepkt(block, ts=None if timestamp_ns else 0)
            else:
                self._writer.writepkt_time(data, Decimal(timestamp_ns) / _NANOSECONDS)
        except OSError as cause:
            raise self._failed(cause) from cause
        except struct.error as cause:
            raise CaptureError(
                f"a time of {timestamp_ns} ns does not fit this format", path=self.path, packet=self.frames
            ) from cause

    def close(self) -> None:
        """Write what is buffered and close the file.

        :raises CaptureError: not all could be written
        """
        try:
            self._resources.close()
        except OSError as cause:
            raise self._failed(cause) from cause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, file: BufferedWriter | gzip.GzipFile) -> Any:
        if self._is_pcapng:
            return _pcapng_writer(file)
        return dpkt.pcap.Writer(file, snaplen=MAX_PACKET_BYTES, linktype=LINKTYPE_ETHERNET, nano=True)

    def _is_same(self, reading: CaptureReader) -> bool:
        try:
            status = Path(self.path).stat()
        except OSError:
            return False  # there is no such file yet
        return (status.st_dev, status.st_ino) == reading.identity

    def _failed(self, cause: OSError) -> CaptureError:
        return CaptureError(f"cannot be written: {cause.strerror or cause}", path=self.path)


def _pcapng_writer(file: BufferedWriter | gzip.GzipFile) -> Any:
    """Return a writer of pcapng whose only interface counts nanoseconds."""
    option = dpkt.pcapng.PcapngOptionLE if _IS_LITTLE else dpkt.pcapng.PcapngOption
    layout = dpkt.pcapng.InterfaceDescriptionBlockLE if _IS_LITTLE else dpkt.pcapng.InterfaceDescriptionBlock
    options = [option(code=dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL, data=_NANOSECOND_RESOLUTION), option()]
    interface = layout(linktype=LINKTYPE_ETHERNET, snaplen=MAX_PACKET_BYTES, opts=options)
    return dpkt.pcapng.Writer(file, idb=interface)
