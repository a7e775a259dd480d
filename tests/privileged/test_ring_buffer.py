"""Records of a kernel's ring buffer are read as the kernel wrote them, around its end, and its room is given back."""

import os
import struct
from collections.abc import Iterator

import pytest

from tests.privileged.test_redirect_probe import RETURN, instruction
from uxdp_runtime.bpf import syscall
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.bpf.ring_buffer import RingBuffer
from uxdp_runtime.bpf.test_run import TestRunner
from uxdp_runtime.errors import BpfError

pytestmark = pytest.mark.kernel

SIZE = 4096


@pytest.fixture
def ring(kernel: None) -> Iterator[Map]:
    with Map.create("ringbuf", key_size=0, value_size=0, max_entries=SIZE) as made:
        yield made


@pytest.fixture
def writer(ring: Map) -> Iterator[TestRunner]:
    """A program that writes the first 14 bytes of a frame as a record; its verdict is the errno, 0 if it found room."""
    copy = b"".join(
        instruction(load, 2, 6, place) + instruction(store, 10, 2, place - 16)
        for load, store, place in ((0x79, 0x7B, 0), (0x61, 0x63, 8), (0x69, 0x6B, 12))
    )
    output = instruction(0x18, 1, 1, immediate=ring.fd) + instruction(0)
    output += instruction(0xBF, 2, 10) + instruction(0x07, 2, immediate=-16)
    output += instruction(0xB7, 3, immediate=14) + instruction(0xB7, 4)
    output += instruction(0x85, immediate=130)  # bpf_ringbuf_output
    body = copy + output
    program = b"".join(
        (
            instruction(0xB7, 0) + instruction(0x61, 6, 1, 0) + instruction(0x61, 7, 1, 4),  # r6 = data, r7 = data_end
            instruction(0xBF, 8, 6) + instruction(0x07, 8, immediate=14),
            instruction(0x2D, 8, 7, len(body) // 8) + body,  # if data + 14 > data_end: skip it
            instruction(0x87, 0) + RETURN,  # -r0
        )
    )
    fd = syscall.load_program(program, license_text="GPL")
    yield TestRunner(fd)
    os.close(fd)


def test_ring_buffer_records_are_read_once_each_around_the_end(ring: Map, writer: TestRunner) -> None:
    position, seen = 0, []
    with RingBuffer(ring) as reader:
        for number in range(1000):
            assert writer.run(struct.pack("!14xI", number)).verdict == 0
            assert writer.run(struct.pack("!I14x", number)).verdict == 0
            records, position = reader.read(position)
            assert records == [bytes(14), struct.pack("!I10x", number)]
            seen += records
            reader.release()
    assert position == 1000 * 2 * 24
    assert len(seen) == 2000


def test_ring_buffer_that_nobody_empties_is_full(ring: Map, writer: TestRunner) -> None:
    with RingBuffer(ring) as reader:
        verdicts = [writer.run(bytes(14)).verdict for _ in range(SIZE // 24 + 10)]
        assert verdicts.count(0) == SIZE // 24
        assert set(verdicts) == {0, 11}  # EAGAIN
        records, position = reader.read(0)
        assert len(records) == verdicts.count(0)
        assert reader.read(position) == ([], position)
        reader.release()
        assert writer.run(bytes(14)).verdict == 0


def test_ring_buffer_of_another_map_raises_bpf_error(kernel: None) -> None:
    with Map.create("array", key_size=4, value_size=8, max_entries=1) as other, pytest.raises(BpfError, match="mmap"):
        RingBuffer(other)
