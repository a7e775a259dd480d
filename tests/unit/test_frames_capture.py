import gzip
import os
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uxdp_runtime.frames.capture import MAX_PACKET_BYTES, CapturedFrame, CaptureError, CaptureReader, read_capture
from uxdp_runtime.frames.capture_writer import CaptureWriter
from uxdp_runtime.frames.generate import generate

SECOND = 10**9
FRAMES = [(bytes(range(60)), 1_700_000_000_123_456_789), (b"\xff" * 1514, 1_700_000_001_000_000_001), (b"a" * 14, 5)]
MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34


# --- files, written down here once more so that the reader is not checked with its own writer


def pcap(
    *frames: tuple[bytes, int],
    magic: int = NANOSECONDS,
    order: str = "<",
    linktype: int = 1,
    version: tuple[int, int] = (2, 4),
    original: int | None = None,
    captured: int | None = None,
) -> bytes:
    unit = 1 if magic == NANOSECONDS else 1000
    content = struct.pack(order + "IHHiIII", magic, *version, 0, 0, 65535, linktype)
    for data, timestamp_ns in frames:
        lengths = (len(data) if captured is None else captured, len(data) if original is None else original)
        content += struct.pack(order + "IIII", timestamp_ns // SECOND, timestamp_ns % SECOND // unit, *lengths)
        content += (struct.pack(order + "IHBB", 3, 8, 0, 0) if magic == MODIFIED else b"") + data
    return content


class Ng:
    """The blocks of a pcapng file, in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def block(self, kind: int, body: bytes, *, length: int | None = None, again: int | None = None) -> bytes:
        body += bytes(-len(body) % 4)
        length = 12 + len(body) if length is None else length
        return self.pack("II", kind, length) + body + self.pack("I", length if again is None else again)

    def section(self, *, magic: int = 0x1A2B3C4D, version: tuple[int, int] = (1, 0), options: bytes = b"") -> bytes:
        return self.block(0x0A0D0D0A, self.pack("IHHq", magic, *version, -1) + options)

    def option(self, code: int, content: bytes) -> bytes:
        return self.pack("HH", code, len(content)) + content + bytes(-len(content) % 4)

    def interface(self, *options: bytes, linktype: int = 1, snaplen: int = 0) -> bytes:
        end = self.option(0, b"") if options else b""
        return self.block(1, self.pack("HHI", linktype, 0, snaplen) + b"".join(options) + end)

    def packet(
        self,
        data: bytes,
        ticks: int = 0,
        *,
        interface: int = 0,
        original: int | None = None,
        captured: int | None = None,
        options: bytes = b"",
    ) -> bytes:
        lengths = (len(data) if captured is None else captured, len(data) if original is None else original)
        head = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, *lengths)
        return self.block(6, head + data + bytes(-len(data) % 4) + options)

    def old_packet(self, data: bytes, ticks: int) -> bytes:
        head = self.pack("HHIIII", 0, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        return self.block(2, head + data)

    def simple_packet(self, data: bytes, original: int | None = None) -> bytes:
        return self.block(3, self.pack("I", len(data) if original is None else original) + data)


LITTLE, BIG = Ng("<"), Ng(">")
NANO = LITTLE.option(9, b"\x09")


def read(content: bytes, path: Path) -> list[CapturedFrame]:
    path.write_bytes(content)
    with CaptureReader(path) as reader:
        return list(reader)


def pairs(frames: list[CapturedFrame]) -> list[tuple[bytes, int]]:
    return [(frame.data, frame.timestamp_ns) for frame in frames]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


# --- what is read


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("magic", [NANOSECONDS, MICROSECONDS, MODIFIED], ids=["ns", "us", "modified"])
def test_reader_pcap_of_every_kind(path, magic, order):
    frames = read(pcap(*FRAMES, magic=magic, order=order), path)
    unit = 1 if magic == NANOSECONDS else 1000
    assert pairs(frames) == [(data, time // unit * unit) for data, time in FRAMES]
    assert [frame.number for frame in frames] == [1, 2, 3]


@pytest.mark.parametrize("ng", [LITTLE, BIG], ids=["little", "big"])
def test_reader_pcapng_of_either_byte_order(path, ng):
    content = ng.section() + ng.interface(ng.option(9, b"\x09"))
    content += b"".join(ng.packet(data, time) for data, time in FRAMES)
    frames = read(content, path)
    assert pairs(frames) == FRAMES
    assert [frame.number for frame in frames] == [1, 2, 3]


@pytest.mark.parametrize(
    ("resolution", "ticks", "expected_ns"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (0x06, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (0x09, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (0x0C, 1_700_000_000_123_456_789, 1_700_000_000_123_456),
        (0x00, 1_700_000_000, 1_700_000_000 * SECOND),
        (0x8A, 1536, 1_500_000_000),
        (0xA0, 3 << 31, 1_500_000_000),
    ],
    ids=["default", "us", "ns", "ps", "seconds", "2^-10", "2^-32"],
)
def test_reader_pcapng_times_of_every_resolution(path, resolution, ticks, expected_ns):
    options = () if resolution is None else (LITTLE.option(9, bytes([resolution])),)
    content = LITTLE.section() + LITTLE.interface(*options) + LITTLE.packet(b"a" * 14, ticks)
    assert pairs(read(content, path)) == [(b"a" * 14, expected_ns)]


@pytest.mark.parametrize("ng", [LITTLE, BIG], ids=["little", "big"])
def test_reader_pcapng_time_offset_is_added(path, ng):
    content = ng.section() + ng.interface(ng.option(14, ng.pack("q", 1000))) + ng.packet(b"a" * 14, 5_000_000)
    assert pairs(read(content, path)) == [(b"a" * 14, 1005 * SECOND)]


def test_reader_pcapng_interfaces_have_their_own_resolution(path):
    content = LITTLE.section() + LITTLE.interface() + LITTLE.interface(NANO)
    content += LITTLE.packet(b"a" * 14, 5, interface=0) + LITTLE.packet(b"b" * 14, 5, interface=1)
    assert pairs(read(content, path)) == [(b"a" * 14, 5000), (b"b" * 14, 5)]


def test_reader_pcapng_sections_begin_anew(path):
    content = LITTLE.section() + LITTLE.interface(NANO) + LITTLE.packet(b"a" * 14, 5)
    content += BIG.section() + BIG.interface() + BIG.packet(b"b" * 14, 5)
    assert [(f.data[:1], f.timestamp_ns, f.number) for f in read(content, path)] == [(b"a", 5, 1), (b"b", 5000, 2)]


def test_reader_pcapng_all_that_tools_write_around_packets(path):
    name = LITTLE.option(2, b"eth0")
    addresses = LITTLE.option(4, bytes(8)) + LITTLE.option(5, bytes(17)) + LITTLE.option(6, b"\2\0\0\0\0\1")
    rest = LITTLE.option(11, b"\0tcp port 80") + LITTLE.option(12, b"Linux") + LITTLE.option(15, b"card")
    comment = LITTLE.option(1, "très long".encode())
    content = LITTLE.section(options=LITTLE.option(3, b"Linux") + LITTLE.option(4, b"dumpcap") + LITTLE.option(0, b""))
    content += LITTLE.interface(name, addresses, NANO, rest, comment)
    content += LITTLE.block(4, bytes(8))  # names of addresses
    content += LITTLE.block(10, bytes(70_000 * 4))  # keys of TLS sessions, longer than any packet
    content += LITTLE.packet(b"a" * 15, 1, options=comment + LITTLE.option(2, bytes(4)) + LITTLE.option(0, b""))
    content += LITTLE.block(5, LITTLE.pack("III", 0, 0, 0))  # statistics
    content += LITTLE.block(0x40000BAD, bytes(3))
    content += LITTLE.old_packet(b"b" * 14, 2) + LITTLE.simple_packet(b"c" * 17)
    assert pairs(read(content, path)) == [(b"a" * 15, 1), (b"b" * 14, 2), (b"c" * 17, 0)]


def test_reader_pcapng_other_linktype_without_packets_does_not_matter(path):
    content = LITTLE.section() + LITTLE.interface(linktype=127) + LITTLE.interface()
    assert pairs(read(content + LITTLE.packet(b"a" * 14, interface=1), path)) == [(b"a" * 14, 0)]


def test_reader_removes_frame_check_sequences(path):
    content = pcap((b"a" * 60 + b"FCS!", 0), linktype=2 << 28 | 0x0400_0000 | 1)
    assert pairs(read(content, path)) == [(b"a" * 60, 0)]


def test_reader_takes_the_format_from_the_content(path):
    compressed = gzip.compress(pcap(*FRAMES))
    assert pairs(read(compressed, path.with_suffix(".pcapng"))) == FRAMES


def test_reader_of_concatenated_gzip_files(path):
    content = pcap(*FRAMES)
    assert pairs(read(gzip.compress(content[:70]) + gzip.compress(content[70:]), path)) == FRAMES


@pytest.mark.parametrize("content", [pcap(), LITTLE.section(), LITTLE.section() + LITTLE.interface()])
def test_reader_without_packets(path, content):
    assert read(content, path) == []


@pytest.mark.parametrize("content", [pcap(*FRAMES), gzip.compress(pcap(*FRAMES))], ids=["plain", "gzip"])
def test_reader_of_pipe(tmp_path, content):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(content))
    writer.start()
    with CaptureReader(fifo) as reader:
        assert pairs(list(reader)) == FRAMES
        assert (reader.size_bytes, reader.position_bytes) == (None, 0)
    writer.join(timeout=10)


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng", ".pcapng.gz"])
def test_reader_says_how_far_it_is(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    with CaptureWriter(path) as writer:
        for frame in generate(2000, 1):
            writer.write(frame.data, 0)
    with CaptureReader(path) as reader:
        positions = [reader.position_bytes for _ in reader]
        assert positions == sorted(positions)
        assert positions[0] < positions[1000] < positions[-1]
        assert reader.position_bytes == reader.size_bytes == path.stat().st_size
    assert reader.position_bytes == 0


def test_read_capture_gives_frames_to_run(path):
    path.write_bytes(pcap(*FRAMES))
    frames = list(read_capture(path))
    assert [(f.data, f.description) for f in frames] == [(d, f"packet {i + 1}") for i, (d, _) in enumerate(FRAMES)]


def test_reader_and_writer_keep_no_frames(tmp_path):
    path, copy = tmp_path / "in.pcapng", tmp_path / "out.pcap.gz"
    with CaptureWriter(path) as writer:
        for i in range(5000):
            writer.write(bytes(1514), i)
    tracemalloc.start()
    with CaptureReader(path) as reader, CaptureWriter(copy) as writer:
        for frame in reader:
            writer.write(frame.data, frame.timestamp_ns)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 7_000_000
    assert peak < 1_000_000


# --- what is refused

EPB = LITTLE.section() + LITTLE.interface(NANO)


@pytest.mark.parametrize(
    ("content", "packet", "message"),
    [
        pytest.param(b"", None, "is empty, expected a pcap or pcapng file", id="empty"),
        pytest.param(b"\x7fELF" + bytes(60), None, "begins with 7f 45 4c 46, expected a pcap", id="elf"),
        pytest.param(b"\xd4", None, "ends after 1 of 4 bytes", id="one-byte"),
        pytest.param(pcap()[:-1], None, "ends after 19 of 20 bytes of the file's header", id="pcap-header"),
        pytest.param(pcap(linktype=101), None, r"link type 101 \(raw IP\), expected 1 \(Ethernet\)", id="pcap-raw-ip"),
        pytest.param(pcap(linktype=9999), None, "link type 9999, expected", id="pcap-unknown-linktype"),
        pytest.param(pcap(version=(3, 0)), None, "version 3.0 of pcap, expected 2.4", id="pcap-version"),
        pytest.param(pcap(*FRAMES) + b"\0", 4, "ends after 1 of 16 bytes of a packet's header", id="pcap-byte-behind"),
        pytest.param(pcap(*FRAMES)[:-1], 3, "ends after 13 of 14 bytes of a packet", id="pcap-last-packet"),
        pytest.param(pcap(FRAMES[0])[:40], 1, "ends after 0 of 60 bytes of a packet", id="pcap-no-packet"),
        pytest.param(pcap(FRAMES[0], original=61), 1, "only 60 of its 61 bytes were captured", id="pcap-cut"),
        pytest.param(pcap(FRAMES[0], captured=262145, original=262145), 1, "at most 262144", id="pcap-long"),
        pytest.param(LITTLE.section()[:9], None, "ends after 5 of 8 bytes of a section", id="ng-half-section"),
        pytest.param(LITTLE.section(magic=5), None, "byte-order magic 0x05000000", id="ng-magic"),
        pytest.param(LITTLE.section(version=(2, 0)), None, "version 2.0 of pcapng, expected 1.0", id="ng-version"),
        pytest.param(LITTLE.section() + b"\1", 1, "ends after 1 of 8 bytes of a block's header", id="ng-byte-behind"),
        pytest.param(
            LITTLE.section() + LITTLE.packet(b"a"), 1, "of interface 0, the file has described 0", id="ng-idb"
        ),
        pytest.param(LITTLE.section() + LITTLE.simple_packet(b"a"), 1, "of interface 0", id="ng-idb-simple"),
        pytest.param(
            EPB + LITTLE.packet(b"a", interface=1), 1, "of interface 1, the file has described 1", id="ng-idb-1"
        ),
        pytest.param(
            LITTLE.section() + LITTLE.interface(linktype=113) + LITTLE.packet(b"a"), 1, "113 .Linux cooked", id="ng-any"
        ),
        pytest.param(
            EPB + LITTLE.packet(b"a") + LITTLE.packet(b"b" * 9, original=10), 2, "only 9 of its 10 bytes", id="ng-cut"
        ),
        pytest.param(
            LITTLE.section() + LITTLE.interface(snaplen=8) + LITTLE.simple_packet(b"a" * 8, 20),
            1,
            "8 of its 20",
            id="ng-cut-simple",
        ),
        pytest.param(
            EPB + LITTLE.simple_packet(b"a" * 8, 20), 1, "20 bytes of a packet in a block", id="ng-simple-long"
        ),
        pytest.param(EPB + LITTLE.packet(b"a" * 8, captured=9, original=9), 1, "9 bytes of a packet", id="ng-long"),
        pytest.param(EPB + LITTLE.packet(b"", captured=2**32 - 1), 1, "4294967295 bytes of a packet", id="ng-huge"),
        pytest.param(EPB + LITTLE.block(6, bytes(8)), 1, "a packet's block of 20 bytes", id="ng-short-packet"),
        pytest.param(EPB + LITTLE.block(2, bytes(8)), 1, "a packet's block of 20 bytes", id="ng-short-old-packet"),
        pytest.param(EPB + LITTLE.block(3, b""), 1, "a packet's block of 12 bytes", id="ng-short-simple-packet"),
        pytest.param(EPB + LITTLE.block(6, bytes(40), length=8), 1, "a block of 8 bytes", id="ng-length-8"),
        pytest.param(EPB + LITTLE.block(6, bytes(40), length=50), 1, "a block of 50 bytes", id="ng-length-50"),
        pytest.param(EPB + LITTLE.block(6, bytes(40), length=2**32 - 4), 1, "4294967292 bytes", id="ng-length-huge"),
        pytest.param(EPB + LITTLE.block(6, bytes(40), again=56), 1, "length 52 and ends with 56", id="ng-again"),
        pytest.param(EPB + LITTLE.block(99, bytes(40), length=0), 1, "a block of 0 bytes", id="ng-skip-length-0"),
        pytest.param(EPB + LITTLE.block(99, bytes(40), length=13), 1, "a block of 13 bytes", id="ng-skip-length-13"),
        pytest.param(EPB + LITTLE.block(99, bytes(40), again=56), 1, "length 52 and ends with 56", id="ng-skip-again"),
        pytest.param(
            EPB + LITTLE.block(99, bytes(40))[:-5], 1, "ends after 39 of 40 bytes of a block", id="ng-skip-cut"
        ),
        pytest.param(
            LITTLE.section() + LITTLE.block(1, bytes(70_000)), 1, "a block of 70012 bytes", id="ng-interface-long"
        ),
        pytest.param(LITTLE.section() + LITTLE.block(1, b""), None, "a malformed block", id="ng-interface-short"),
        pytest.param(
            LITTLE.section() + LITTLE.interface(LITTLE.option(9, b"")), None, "malformed option", id="ng-resolution"
        ),
        pytest.param(
            LITTLE.section() + LITTLE.interface(LITTLE.option(14, b"\0" * 5)), None, "malformed option", id="ng-offset"
        ),
        pytest.param(
            LITTLE.section() + LITTLE.interface(LITTLE.option(1, b"\xff\xfe")), None, "malformed block", id="ng-comment"
        ),
        pytest.param(gzip.compress(pcap(*FRAMES))[:-20], None, "compressed file is damaged or ends", id="gzip-cut"),
        pytest.param(gzip.compress(pcap(*FRAMES))[:-8] + bytes(8), None, "cannot be read: CRC check", id="gzip-crc"),
        pytest.param(gzip.compress(pcap())[:10] + b"\xff" * 40, None, "compressed file is damaged", id="gzip-damaged"),
        pytest.param(gzip.compress(gzip.compress(pcap())), None, "begins with 1f 8b", id="gzip-twice"),
    ],
)
def test_reader_refuses_file(path, content, packet, message):
    with pytest.raises(CaptureError, match=message) as caught:
        read(content, path)
    error = caught.value
    assert (error.path, error.packet, error.exit_code) == (str(path), packet, 1)
    assert error.context == (str(path) if packet is None else f"{path}, packet {packet}")


def test_reader_yields_frames_up_to_the_damage(path):
    path.write_bytes(pcap(*FRAMES)[:-1])
    seen = []
    with CaptureReader(path) as reader, pytest.raises(CaptureError, match="packet 3"):
        for frame in reader:
            seen.append((frame.data, frame.timestamp_ns))
    assert seen == FRAMES[:2]


def test_reader_too_many_interfaces(path):
    with pytest.raises(CaptureError, match="more than 65536 interfaces"):
        read(LITTLE.section() + LITTLE.interface() * 65537, path)


def test_reader_packet_with_a_great_many_options_is_read_at_once(path):
    options = LITTLE.option(2, b"") * 100_000
    content = LITTLE.section() + LITTLE.interface() + LITTLE.packet(b"a" * 14, options=options)
    assert len(read(content, path)) == 1


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "No such file or directory"), (".", "Is a directory"), ("secret", "denied")]
)
def test_reader_refuses_what_it_cannot_open(tmp_path, monkeypatch, name, message):
    if name == "secret":  # root may read everything
        monkeypatch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(CaptureError, match=f"cannot be read: .*{message}") as caught:
        CaptureReader(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)


def sample(kind: str) -> bytes:
    if kind == "pcap":
        return pcap(*FRAMES)
    content = LITTLE.section() + LITTLE.interface(NANO) + LITTLE.block(4, bytes(8))
    content += b"".join(LITTLE.packet(data, time) for data, time in FRAMES) + LITTLE.simple_packet(b"c" * 20)
    return gzip.compress(content) if kind == "gzip" else content


def survivors(content: bytes, path: Path) -> Iterator[CapturedFrame]:
    path.write_bytes(content)
    with CaptureReader(path) as reader:
        yield from reader


@pytest.mark.parametrize("kind", ["pcap", "pcapng", "gzip"])
def test_reader_file_truncated_anywhere_is_refused_or_shorter(path, kind):
    whole = sample(kind)
    frames = pairs(read(whole, path))
    refused = 0
    for length in range(len(whole)):
        seen: list[tuple[bytes, int]] = []
        try:
            seen.extend((frame.data, frame.timestamp_ns) for frame in survivors(whole[:length], path))
        except CaptureError:
            refused += 1
        assert seen == frames[: len(seen)]
    assert refused > len(whole) * 0.9


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["pcap", "pcapng", "gzip"]))
def test_reader_file_damaged_anywhere_raises_nothing_else(path, data, kind):
    content = bytearray(sample(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        for frame in survivors(bytes(content), path):
            assert len(frame.data) <= MAX_PACKET_BYTES
    except CaptureError:
        pass


# --- writing


@pytest.mark.parametrize("suffix", [".pcap", ".cap", ".pcapng", ".pcap.gz", ".pcapng.gz", ".PCAPNG"])
def test_writer_and_reader_round_trip(tmp_path, suffix):
    path = tmp_path / f"file{suffix}"
    frames = [*FRAMES, (b"", 0), (b"odd", 1), (b"x" * 9000, 2), (b"late", (2**32 - 1) * SECOND + 999_999_999)]
    with CaptureWriter(path) as writer:
        for data, timestamp_ns in frames:
            writer.write(data, timestamp_ns)
        assert writer.frames == len(frames)
    with CaptureReader(path) as reader:
        assert pairs(list(reader)) == frames


def test_writer_pcap_is_in_nanoseconds(path):
    with CaptureWriter(path.with_suffix(".pcap")) as writer:
        writer.write(*FRAMES[0])
    content = path.with_suffix(".pcap").read_bytes()
    assert content[24:] == pcap(FRAMES[0])[24:]
    assert struct.unpack("<IHHiIII", content[:24]) == (NANOSECONDS, 2, 4, 0, 0, MAX_PACKET_BYTES, 1)


def test_writer_pcapng_is_what_the_format_says(path):
    with CaptureWriter(path.with_suffix(".pcapng")) as writer:
        writer.write(*FRAMES[2])
    expected = LITTLE.section() + LITTLE.interface(NANO, snaplen=MAX_PACKET_BYTES) + LITTLE.packet(*FRAMES[2])
    assert path.with_suffix(".pcapng").read_bytes() == expected


def test_writer_gzip_of_equal_frames_is_equal(tmp_path):
    contents = []
    for name in ("one.pcap.gz", "two.pcap.gz"):
        with CaptureWriter(tmp_path / name) as writer:
            writer.write(*FRAMES[0])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["out", "out.txt", "out.pcap.zst", "out.gz", ".pcap", "out.tar.gz"])
def test_writer_refuses_other_suffixes(tmp_path, name):
    with pytest.raises(CaptureError, match=r"called .pcap, .cap or .pcapng") as caught:
        CaptureWriter(tmp_path / name)
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_writer_refuses_file_that_is_being_read(tmp_path):
    path = tmp_path / "in.pcap"
    path.write_bytes(pcap(*FRAMES))
    (tmp_path / "link.pcap").symlink_to(path)
    with CaptureReader(path) as reader:
        for name in ("in.pcap", "link.pcap"):
            with pytest.raises(CaptureError, match="is being read"):
                CaptureWriter(tmp_path / name, reading=reader)
        with CaptureWriter(tmp_path / "out.pcap", reading=reader) as writer:
            writer.write(*FRAMES[0])
        assert pairs(list(reader)) == FRAMES


@pytest.mark.parametrize("name", ["missing/out.pcap", "missing/out.pcapng.gz"])
def test_writer_refuses_what_it_cannot_open(tmp_path, name):
    with pytest.raises(CaptureError, match="cannot be written: No such file or directory"):
        CaptureWriter(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "timestamp_ns"),
    [(".pcap", 2**32 * SECOND), (".pcap", -1), (".pcapng", 2**64), (".pcapng", -1), (".pcap.gz", 10**30)],
)
def test_writer_refuses_time_that_does_not_fit(tmp_path, suffix, timestamp_ns):
    with CaptureWriter(tmp_path / f"out{suffix}") as writer:
        writer.write(b"a" * 14, 1)
        with pytest.raises(CaptureError, match="does not fit this format") as caught:
            writer.write(b"a" * 14, timestamp_ns)
    assert caught.value.packet == 2


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng", ".pcapng.gz"])
def test_writer_full_disk_raises_capture_error(tmp_path, suffix):
    path = tmp_path / f"full{suffix}"
    path.symlink_to("/dev/full")
    with (
        pytest.raises(CaptureError, match="cannot be written: No space left on device"),
        CaptureWriter(path) as writer,
    ):
        for _ in range(1000):
            writer.write(os.urandom(1514), 0)
