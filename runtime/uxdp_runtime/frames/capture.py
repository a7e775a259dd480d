"""Read capture files: pcap (micro- and nanoseconds, either byte order) and pcapng, also gzipped.

Frames are streamed: one block is in memory at a time, and a block has a limit. dpkt knows how the formats' headers and
blocks are laid out. Its own readers hide what a replay has to know (whether a packet was cut when it was captured, a
second interface's link type, that a file ends too early) and round timestamps, so the loops over the blocks are here.
All times are whole nanoseconds since 1970.

References: draft-ietf-opsawg-pcap; draft-ietf-opsawg-pcapng; https://www.tcpdump.org/linktypes.html
"""

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self

import dpkt.pcap
import dpkt.pcapng

from uxdp_bundle.errors import UxdpError

from .generate import Frame

LINKTYPE_ETHERNET: Final = 1
# MAXIMUM_SNAPLEN of libpcap for all but a few link types: no tool writes longer packets, so a longer one is damage.
MAX_PACKET_BYTES: Final = 262_144
# A packet with its header and options. Blocks of other kinds, such as the keys of TLS sessions, are skipped in pieces.
_MAX_BLOCK_BYTES: Final = 2 * MAX_PACKET_BYTES
# A section's or interface's header; an option has at most 64 KiB, but there is no tool that needs as much for all.
_MAX_HEADER_BYTES: Final = 1 << 16
_SKIP_BYTES: Final = 1 << 16
_MAX_INTERFACES: Final = 1 << 16  # of a section: what is remembered of a file shall not grow with it

_NANOSECONDS: Final = 10**9
_NANOSECOND_MAGICS: Final = frozenset({dpkt.pcap.TCPDUMP_MAGIC_NANO, dpkt.pcap.PMUDPCT_MAGIC_NANO})
_SWAPPED_MAGICS: Final = frozenset(
    {dpkt.pcap.PMUDPCT_MAGIC, dpkt.pcap.PMUDPCT_MAGIC_NANO, dpkt.pcap.PACPDOM_MAGIC}  # read as big-endian numbers
)
_FCS_PRESENT: Final = 0x0400_0000  # in a pcap file's link type: frames end in a frame check sequence
_LINKTYPE_MASK: Final = 0xFFFF
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SECTION_MAGIC: Final = b"\n\r\r\n"
_MIN_BLOCK_BYTES: Final = 12
_DAMAGE: Final = (dpkt.Error, struct.error, ValueError, IndexError)  # what dpkt raises on malformed blocks
_LINKTYPE_NAMES: Final = {
    0: "BSD loopback",
    9: "PPP",
    101: "raw IP",
    105: "802.11",
    113: "Linux cooked, as of tcpdump -i any",
    127: "802.11 radiotap",
    228: "IPv4",
    229: "IPv6",
    276: "Linux cooked v2, as of tcpdump -i any",
}


class CaptureError(UxdpError):
    """A capture file cannot be used; ``path`` is the file, ``packet`` counts from 1 (None: not one packet's fault)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, path: str, packet: int | None = None, remedy: str = "") -> None:
        super().__init__(message, context=path if packet is None else f"{path}, packet {packet}", remedy=remedy)
        self.path = path
        self.packet = packet


class CapturedFrame(NamedTuple):
    """A frame as it was captured; ``number`` counts from 1, as capture tools do; time 0 if the file has none."""

    data: bytes
    timestamp_ns: int
    number: int


class _Interface(NamedTuple):
    """What packets of a pcapng file refer to; ``ticks`` is the resolution of times, per second."""

    linktype: int
    snaplen: int
    ticks: int
    offset_ns: int


class _Section:
    """A section of a pcapng file: dpkt's blocks in its byte order, and the interfaces described so far."""

    def __init__(self, *, is_little: bool) -> None:
        blocks = dpkt.pcapng
        self.order = "<" if is_little else ">"
        self.head = struct.Struct(self.order + "II")
        self.length = struct.Struct(self.order + "I")
        self.header: Any = blocks.SectionHeaderBlockLE if is_little else blocks.SectionHeaderBlock
        self.interface: Any = blocks.InterfaceDescriptionBlockLE if is_little else blocks.InterfaceDescriptionBlock
        # Filled anew by each packet: to make a block of its own for each takes three times as long.
        self.packets: dict[int, Any] = {
            blocks.PCAPNG_BT_EPB: (blocks.EnhancedPacketBlockLE if is_little else blocks.EnhancedPacketBlock)(),
            blocks.PCAPNG_BT_PB: (blocks.PacketBlockLE if is_little else blocks.PacketBlock)(),
        }
        self.interfaces: list[_Interface] = []


class CaptureReader:
    """Iterate over the frames of a capture file, once.

    What the file is shows when the first frame is asked for. After an error, the frames before it were good.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file; its content tells the format, not its name. A pipe will do.

        :raises CaptureError: it cannot be opened
        """
        self.path = str(path)
        self._number = 0
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(Path(path).open("rb"))
                status = os.fstat(self._file.fileno())
                self._stream: BufferedReader | gzip.GzipFile = self._file
                if self._file.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] == _GZIP_MAGIC:
                    self._stream = stack.enter_context(gzip.GzipFile(fileobj=self._file, mode="rb"))
                self._size = status.st_size if self._file.seekable() else None
            except OSError as cause:
                raise CaptureError(f"cannot be read: {cause.strerror or cause}", path=self.path) from cause
            self.identity = (status.st_dev, status.st_ino)
            self._resources = stack.pop_all()

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the file, compressed as it may be; None for a pipe."""
        return self._size

    @property
    def position_bytes(self) -> int:
        """Bytes of the file read so far, for a progress bar; 0 for a pipe."""
        return self._file.tell() if self._size is not None and not self._file.closed else 0

    def close(self) -> None:
        """Close the file."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[CapturedFrame]:
        """Yield the frames.

        :raises CaptureError: no capture file, not Ethernet, truncated, damaged, or a packet that was cut when captured
        """
        magic = self._read(4, "the file's magic number", or_end=True)
        if magic == _SECTION_MAGIC:
            return self._pcapng(magic)
        number = int.from_bytes(magic, "big")
        if len(magic) == 4 and number in dpkt.pcap.MAGIC_TO_PKT_HDR:
            return self._pcap(magic, number)
        seen = f"begins with {magic.hex(' ')}" if magic else "is empty"
        raise self._error(f"{seen}, expected a pcap or pcapng file", packet=False)

    # --- pcap

    def _pcap(self, magic: bytes, number: int) -> Iterator[CapturedFrame]:
        layout = dpkt.pcap.LEFileHdr if number in _SWAPPED_MAGICS else dpkt.pcap.FileHdr
        header = layout(magic + self._read(layout.__hdr_len__ - len(magic), "the file's header", packet=False))
        if header.v_major != dpkt.pcap.PCAP_VERSION_MAJOR:
            raise self._error(f"version {header.v_major}.{header.v_minor} of pcap, expected 2.4", packet=False)
        self._check_linktype(header.linktype & _LINKTYPE_MASK, packet=False)
        fcs_bytes = (header.linktype >> 28) * 2 if header.linktype & _FCS_PRESENT else 0
        unit = 1 if number in _NANOSECOND_MAGICS else 1000
        record = dpkt.pcap.MAGIC_TO_PKT_HDR[number]
        while True:
            self._number += 1
            raw = self._read(record.__hdr_len__, "a packet's header", or_end=True)
            if not raw:
                return
            packet = record(raw)
            self._check_length(packet.caplen, packet.len)
            data = self._read(packet.caplen, "a packet")
            timestamp_ns = packet.tv_sec * _NANOSECONDS + packet.tv_usec * unit
            yield CapturedFrame(data[: len(data) - fcs_bytes] if fcs_bytes else data, timestamp_ns, self._number)

    # --- pcapng

    def _pcapng(self, magic: bytes) -> Iterator[CapturedFrame]:
        section = self._section(magic)
        self._number = 1
        while True:
            head = self._read(section.head.size, "a block's header", or_end=True)
            if not head:
                return
            kind, length = section.head.unpack(head)
            if head.startswith(_SECTION_MAGIC):
                section = self._section(head)
            elif kind == dpkt.pcapng.PCAPNG_BT_IDB:
                block = self._parsed(section.interface, self._block(head, length, section, _MAX_HEADER_BYTES))
                if len(section.interfaces) == _MAX_INTERFACES:
                    raise self._error(f"more than {_MAX_INTERFACES} interfaces", packet=False)
                section.interfaces.append(self._interface(block, section))
            elif kind in section.packets:
                yield self._packet(section.packets[kind], self._block(head, length, section), section)
                self._number += 1
            elif kind == dpkt.pcapng.PCAPNG_BT_SPB:
                yield self._simple_packet(self._block(head, length, section), section)
                self._number += 1
            else:
                self._skip(length, section)

    def _section(self, head: bytes) -> _Section:
        """Read a section's header, of which ``head`` was read."""
        head += self._read(12 - len(head), "a section's header")
        magic = int.from_bytes(head[8:], "big")
        if magic not in (dpkt.pcapng.BYTE_ORDER_MAGIC, dpkt.pcapng.BYTE_ORDER_MAGIC_LE):
            raise self._error(f"byte-order magic {magic:#010x} of a section", packet=False)
        section = _Section(is_little=magic == dpkt.pcapng.BYTE_ORDER_MAGIC_LE)
        (length,) = section.length.unpack_from(head, 4)
        header = self._parsed(section.header, self._block(head, length, section, _MAX_HEADER_BYTES))
        if header.v_major != dpkt.pcapng.PCAPNG_VERSION_MAJOR:
            raise self._error(f"version {header.v_major}.{header.v_minor} of pcapng, expected 1.0", packet=False)
        return section

    def _block(self, head: bytes, length: int, section: _Section, limit: int = _MAX_BLOCK_BYTES) -> bytes:
        """Return a whole block, of which ``head`` was read."""
        if not max(_MIN_BLOCK_BYTES, len(head) + 4) <= length <= limit or length % 4:
            raise self._error(f"a block of {length} bytes, expected a multiple of 4 up to {limit}")
        block = head + self._read(length - len(head), "a block")
        (again,) = section.length.unpack_from(block, length - 4)
        if again != length:
            raise self._error(f"a block begins with the length {length} and ends with {again}")
        return block

    def _skip(self, length: int, section: _Section) -> None:
        """Read over a block whose first 8 bytes were read."""
        if length < _MIN_BLOCK_BYTES or length % 4:
            raise self._error(f"a block of {length} bytes, expected a multiple of 4")
        left = length - _MIN_BLOCK_BYTES
        while left:
            left -= len(self._read(min(left, _SKIP_BYTES), "a block"))
        (again,) = section.length.unpack(self._read(4, "a block"))
        if again != length:
            raise self._error(f"a block begins with the length {length} and ends with {again}")

    def _parsed(self, layout: Any, block: bytes) -> Any:
        try:
            return layout(block)
        except _DAMAGE as cause:
            raise self._error(f"a malformed block: {cause}", packet=False) from cause

    def _interface(self, block: Any, section: _Section) -> _Interface:
        ticks, offset_ns = 10**6, 0
        try:
            for option in block.opts:
                if option.code == dpkt.pcapng.PCAPNG_OPT_IF_TSRESOL:
                    exponent = option.data[0]
                    ticks = 2 ** (exponent & 0x7F) if exponent & 0x80 else 10**exponent
                elif option.code == dpkt.pcapng.PCAPNG_OPT_IF_TSOFFSET:
                    offset_ns = struct.unpack(section.order + "q", option.data)[0] * _NANOSECONDS
        except _DAMAGE as cause:
            raise self._error(f"a malformed option of an interface: {cause}", packet=False) from cause
        return _Interface(block.linktype, block.snaplen, ticks, offset_ns)

    def _interface_of(self, index: int, section: _Section) -> _Interface:
        if index >= len(section.interfaces):
            raise self._error(f"of interface {index}, the file has described {len(section.interfaces)}")
        interface = section.interfaces[index]
        self._check_linktype(interface.linktype, packet=True)
        return interface

    def _packet(self, layout: Any, block: bytes, section: _Section) -> CapturedFrame:
        room = len(block) - layout.__hdr_len__
        if room < 0:
            raise self._error(f"a packet's block of {len(block)} bytes")
        layout.unpack_hdr(block)  # not its options: none is needed, and there may be a great many
        interface = self._interface_of(layout.iface_id, section)
        if layout.caplen > room:
            raise self._error(f"{layout.caplen} bytes of a packet in a block of {len(block)} bytes")
        self._check_length(layout.caplen, layout.pkt_len)
        ticks = layout.ts_high << 32 | layout.ts_low
        timestamp_ns = ticks * _NANOSECONDS // interface.ticks + interface.offset_ns
        start = layout.__hdr_len__ - 4  # the block's length stands behind the packet once more
        return CapturedFrame(block[start : start + layout.caplen], timestamp_ns, self._number)

    def _simple_packet(self, block: bytes, section: _Section) -> CapturedFrame:
        """Return the packet of a block that holds nothing but its length and its bytes; dpkt has no class for it."""
        room = len(block) - 16
        if room < 0:
            raise self._error(f"a packet's block of {len(block)} bytes")
        interface = self._interface_of(0, section)
        (original,) = section.length.unpack_from(block, 8)
        captured = min(original, interface.snaplen or original)
        if captured > room:
            raise self._error(f"{captured} bytes of a packet in a block of {len(block)} bytes")
        self._check_length(captured, original)
        return CapturedFrame(block[12 : 12 + captured], 0, self._number)

    # --- both

    def _check_linktype(self, linktype: int, *, packet: bool) -> None:
        if linktype != LINKTYPE_ETHERNET:
            name = _LINKTYPE_NAMES.get(linktype)
            seen = f"{linktype} ({name})" if name else f"{linktype}"
            raise self._error(
                f"link type {seen}, expected {LINKTYPE_ETHERNET} (Ethernet)",
                packet=packet,
                remedy="capture on one Ethernet interface, as in: tcpdump -i eth0 -w file.pcap",
            )

    def _check_length(self, captured: int, original: int) -> None:
        if captured > MAX_PACKET_BYTES:
            raise self._error(f"{captured} bytes, at most {MAX_PACKET_BYTES} can be captured: the file is damaged")
        if captured < original:
            raise self._error(
                f"only {captured} of its {original} bytes were captured",
                remedy="capture whole packets, as in: tcpdump -s 0 -w file.pcap",
            )

    def _read(self, size: int, what: str, *, packet: bool = True, or_end: bool = False) -> bytes:
        """Return exactly ``size`` bytes, or none if the file may and does end here."""
        try:
            data = self._stream.read(size)
        except (EOFError, zlib.error) as cause:
            raise self._error(f"the compressed file is damaged or ends too early: {cause}", packet=False) from cause
        except OSError as cause:
            raise self._error(f"cannot be read: {cause.strerror or cause}", packet=False) from cause
        if len(data) == size or (or_end and not data):
            return data
        raise self._error(f"the file ends after {len(data)} of {size} bytes of {what}", packet=packet)

    def _error(self, message: str, *, packet: bool = True, remedy: str = "") -> CaptureError:
        number = self._number if packet and self._number else None
        return CaptureError(message, path=self.path, packet=number, remedy=remedy)


def read_capture(path: str | Path) -> Iterator[Frame]:
    """Yield the frames of a capture file to run a program on.

    :raises CaptureError: the file cannot be used; frames before the place where that shows have been yielded
    """
    with CaptureReader(path) as reader:
        for frame in reader:
            yield Frame(frame.data, description=f"packet {frame.number}")
