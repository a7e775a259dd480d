"""Samples: the ring between a queue's thread and the control process, and the file that they go to."""

import logging
import struct
import sys
from pathlib import Path
from typing import Any

import dpkt.pcapng
import pytest

from uxdp_runtime.frames import verdict_capture
from uxdp_runtime.frames.capture import CaptureError, CaptureReader
from uxdp_runtime.frames.judged_frame import JudgedFrame
from uxdp_runtime.frames.verdict_capture import VerdictCapture
from uxdp_runtime.ports.port_abi import SAMPLE_BYTES, SAMPLES
from uxdp_runtime.serve.sample_ring import SampleRing
from uxdp_runtime.serve.sampling import Sampler

START_NS = 1_700_000_000_123_456_789
DATA_BYTES = SAMPLE_BYTES - 24


def blocks(path: Path) -> list[Any]:
    """Return the packets of a file; all of its blocks must be whole."""
    data, packets = path.read_bytes(), []
    order = "<" if sys.byteorder == "little" else ">"
    while data:
        kind, size = struct.unpack(f"{order}II", data[:8])
        assert len(data) >= size
        assert struct.unpack(f"{order}I", data[size - 4 : size]) == (size,)
        if kind == dpkt.pcapng.PCAPNG_BT_EPB:
            packets.append(verdict_capture._Packet(data[:size]))
        data = data[size:]
    return packets


def put(ring: SampleRing, data: bytes, *, verdict: int = 3, length: int | None = None, captured: int = -1) -> None:
    """Write a sample as a queue's thread does."""
    sample = ring.state.slots[ring.state.producer % SAMPLES]
    sample.time_ns, sample.verdict = START_NS + ring.state.producer, verdict
    sample.len = len(data) if length is None else length
    sample.captured = len(data) if captured < 0 else captured
    sample.data[: len(data)] = data
    ring.state.producer += 1


def test_capture_holds_frames_with_verdict_and_queue(tmp_path: Path) -> None:
    path = tmp_path / "samples.pcapng"
    with VerdictCapture(path, ["eth0", "eth1"]) as capture:
        capture.write([])
        capture.write(
            [JudgedFrame(1, 7, START_NS, 3, b"abcdef", 6), JudgedFrame(0, 0, START_NS + 1, 9, bytes(14), 9000)]
        )
    assert path.stat().st_mode & 0o777 == 0o600
    first, second = blocks(path)
    assert (first.iface_id, first.pkt_data, first.pkt_len) == (1, b"abcdef", 6)
    assert first.ts_high << 32 | first.ts_low == START_NS
    options = {option.code: option.data for option in first.opts}
    assert options[1].rstrip(b"\0") == b"XDP_TX, queue 7"
    assert options[6] == struct.pack("=I", 7)
    assert options[7] == struct.pack("=BQ", 2, 3)
    assert (second.caplen, second.pkt_len) == (14, 9000)
    assert {option.code: option.data for option in second.opts}[1] == b"XDP_ABORTED (returned 9), queue 0"
    with CaptureReader(path) as reader:
        frame = next(iter(reader))
    assert (frame.data, frame.timestamp_ns) == (b"abcdef", START_NS)


@pytest.mark.parametrize(
    ("name", "message"),
    [("samples.pcap", "is called .pcapng"), ("nowhere/samples.pcapng", "cannot be written: No such file")],
)
def test_capture_that_cannot_be_made_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        VerdictCapture(tmp_path / name, ["eth0"])


def test_capture_on_a_full_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "full.pcapng"
    path.symlink_to("/dev/full")
    with pytest.raises(CaptureError, match="No space left"):
        VerdictCapture(path, ["eth0"])


def test_ring_gives_each_sample_once() -> None:
    ring = SampleRing(10)
    assert ring.take(0, 0) == []
    for number in range(3):
        put(ring, b"frame %d" % number, verdict=number)
    frames = ring.take(2, 5)
    assert [(frame.interface, frame.queue_id, frame.verdict, frame.data) for frame in frames] == [
        (2, 5, number, b"frame %d" % number) for number in range(3)
    ]
    assert frames[1].timestamp_ns == START_NS + 1
    assert ring.state.consumer == 3
    assert ring.take(2, 5) == []
    for number in range(SAMPLES):  # around the ring
        put(ring, struct.pack("=I", number))
    assert [frame.data for frame in ring.take(0, 0)] == [struct.pack("=I", number) for number in range(SAMPLES)]


def test_ring_does_not_believe_its_producer() -> None:
    ring = SampleRing(1)
    put(ring, b"x", length=0, captured=0xFFFFFFFF)
    (frame,) = ring.take(0, 0)
    assert (len(frame.data), frame.len_bytes) == (DATA_BYTES, DATA_BYTES)
    ring.state.producer = (1 << 64) - 1
    assert len(ring.take(0, 0)) == SAMPLES
    ring.state.producer = 5  # back again
    assert ring.take(0, 0) == []
    put(ring, b"y")
    assert [frame.data for frame in ring.take(0, 0)] == [b"y"]


def test_sampler_orders_queues_by_time_and_says_how_many(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rings = [SampleRing(1), SampleRing(1)]
    with Sampler(str(tmp_path / "a.pcapng"), ["eth0", "eth1"]) as sampler:
        for ring, name in zip(rings, ("eth1", "eth0"), strict=True):
            sampler.add(ring, name, 0)
        put(rings[0], b"first")
        put(rings[0], b"second")
        put(rings[1], b"also first")
        rings[1].state.missed = 4
        sampler.drain()
        put(rings[1], b"last")
    packets = blocks(tmp_path / "a.pcapng")
    assert [(packet.iface_id, packet.pkt_data) for packet in packets] == [
        *((1, b"first"), (0, b"also first"), (1, b"second"), (0, b"last")),
    ]
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "sampling_ended"]
    assert record.levelno == logging.INFO
    assert record.fields == {"path": str(tmp_path / "a.pcapng"), "frames": 4, "missed": 4}  # type: ignore[attr-defined]


def test_sampler_that_cannot_write_says_so_once_and_leaves_whole_blocks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.pcapng"
    room = 300
    write = verdict_capture.os.write

    def limited(fd: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(28, "No space left on device")
        written = write(fd, data[:room])
        room -= written
        return written

    monkeypatch.setattr(verdict_capture.os, "write", limited)
    ring = SampleRing(1)
    with Sampler(str(path), ["eth0"]) as sampler:
        sampler.add(ring, "eth0", 0)
        put(ring, b"fits")
        sampler.drain()
        for _ in range(3):
            put(ring, bytes(200))
            sampler.drain()
    assert [packet.pkt_data for packet in blocks(path)] == [b"fits"]
    told = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "sampling_ended"]
    assert len(told) == 1
    assert "sampling has ended, serving goes on" in told[0]
    assert "No space left on device; 1 frames" in told[0]
