"""Native helpers against the kernel's: results and what becomes of the frame."""

import ctypes
import os
import random
import struct
from pathlib import Path

import pytest

from tests.kernel_scripts import (
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R9,
    R10,
    call,
    copy,
    end,
    instruction,
    loaded,
    map_argument,
    move,
    packet_pointer,
    store_result,
    test_run,
    with_packet,
)
from tests.native_frames import NativeFrame
from tests.native_library import Definition, KernelMap, NativeMap, native_library, worker

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

TRACE_PRINTK, REDIRECT, CSUM_DIFF, ADJUST_HEAD, REDIRECT_MAP, ADJUST_META, ADJUST_TAIL = 6, 23, 28, 44, 51, 54, 65
LOAD_BYTES, STORE_BYTES, BUFF_LEN = 189, 190, 188
ADJUST_NAMES = {ADJUST_HEAD: "head", ADJUST_META: "meta", ADJUST_TAIL: "tail"}
MASK = (1 << 64) - 1


@pytest.mark.parametrize("seed", range(4))
def test_csum_diff_random_sizes_equals_kernel(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        sizes = [draw.choice([0, 0, 4, 8, 20, 40, 64, 1, 2, 3, 5, 6, 7]) for _ in range(2)]
        start = draw.choice([0, 0xFFFF, 0x7FFFFFFF, -1, 1, 0xABCD, -65536])
        data = draw.choice([bytes(128), b"\xff" * 128, *(draw.randbytes(128) for _ in range(6))])
        body = packet_pointer(R1, 0) if sizes[0] else move(R1, 0)
        body += move(R2, sizes[0])
        body += packet_pointer(R3, 64) if sizes[1] else move(R3, 0)
        body += move(R4, sizes[1]) + move(R5, start) + call(CSUM_DIFF) + store_result(R0, 128)
        with loaded(with_packet(body, 136)) as program:
            (theirs,) = struct.unpack_from("<q", test_run(program, data + bytes(8)).frame, 128)
        ours = native_library().uxdp_helper_csum_diff(data[:64], sizes[0], data[64:], sizes[1], start & MASK)
        assert ours == theirs, (sizes, start, data)


@pytest.mark.parametrize("seed", range(4))
def test_adjust_random_sequence_equals_kernel(seed: int) -> None:
    """Results, bytes and metadata; the program returns the four results' lower bytes."""
    draw = random.Random(seed)
    for _ in range(150):
        size = draw.choice([14, 15, 60, 64, 100, 1500, 3000, 3520])
        frame = draw.randbytes(size)
        deltas = [-256, -252, -217, -216, -215, -212, -4, 0, 4, 3520 - size, 3521 - size, 14 - size, 13 - size]
        deltas += [-(1 << 31), (1 << 31) - 1]
        changes = []
        for _ in range(4):
            delta = draw.choice([draw.randrange(-300, 300), draw.randrange(-40, 40) * 4, draw.choice(deltas)])
            changes.append((draw.choice([ADJUST_HEAD, ADJUST_META, ADJUST_TAIL]), delta))
        code = copy(R6, R1) + move(R9, 0)
        for helper, delta in changes:
            code += copy(R1, R6) + move(R2, delta) + call(helper)
            code += instruction(0x67, R9, 0, 0, 8) + instruction(0x57, R0, 0, 0, 0xFF) + instruction(0x0F, R9, R0)
        with loaded(code + copy(R0, R9) + end(None)) as program:
            kernel = test_run(program, frame)

        native = NativeFrame(frame)
        results = 0
        for helper, delta in changes:
            results = results << 8 | native.adjust(ADJUST_NAMES[helper], delta) & 0xFF
        assert results == kernel.verdict, (size, changes)
        assert native.metadata + native.data == kernel.frame, (size, changes)
        assert len(native.metadata) == kernel.data


@pytest.mark.parametrize("offset", [0, 1, 50, 63, 64, 65, 0xFFFF, 0x10000, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [1, 8, 14, 64])
def test_bytes_range_equals_kernel(offset: int, size: int) -> None:
    frame = bytes(range(64))
    signed = offset - (1 << 32) if offset >= 1 << 31 else offset
    code = copy(R6, R1)
    for place in range(-64, 0, 8):
        code += instruction(0x7A, R10, 0, place, 0)
    arguments = copy(R1, R6) + move(R2, signed) + copy(R3, R10) + instruction(0x07, R3, 0, 0, -64) + move(R4, size)
    code += arguments + call(LOAD_BYTES) + copy(R9, R0) + instruction(0x07, R9, 0, 0, 1000)
    code += instruction(0x71, R5, R10, -64 + size - 1) + instruction(0x07, R5, 0, 0, 1)
    code += instruction(0x73, R10, R5, -64 + size - 1)
    code += arguments + call(STORE_BYTES) + instruction(0x0F, R9, R0) + copy(R0, R9) + end(None)
    with loaded(code) as program:
        kernel = test_run(program, frame)

    native = NativeFrame(frame)
    loaded_result, data = native.load(offset, size)
    data = data[:-1] + bytes([(data[-1] + 1) & 0xFF])
    assert loaded_result + 1000 + native.store(offset, data) == kernel.verdict
    assert native.data == kernel.frame


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 8, 16, 24, 27, 32, 1 << 31])
@pytest.mark.parametrize("key", [0, 1, 5])
@pytest.mark.parametrize("kind", ["devmap", "devmap_hash", "cpumap", "xskmap"])
def test_redirect_map_flags_equal_kernel(kind: str, key: int, flags: int) -> None:
    """Entry 1 is there: interface 1 (lo), or a queue for CPU 1; in the XSKMAP there is none."""
    definition = Definition(kind, 4, 4, 4)
    native = NativeMap(definition)
    with KernelMap(definition) as kernel_map:
        if kind != "xskmap":
            for either in (native, kernel_map):
                either.update(struct.pack("<I", 1 if kind != "cpumap" else 0), struct.pack("<I", 1))
        signed = flags - (1 << 32) if flags >= 1 << 31 else flags
        code = map_argument(kernel_map.fd) + move(R2, key) + move(R3, signed) + call(REDIRECT_MAP) + end(None)
        with loaded(code) as program:
            theirs = test_run(program, bytes(64)).verdict
    frame = NativeFrame(bytes(64))
    assert frame.redirect_map(native, key, signed & MASK) == theirs


@pytest.mark.parametrize("flags", [0, 1, 2])
def test_redirect_flags_equal_kernel(flags: int) -> None:
    with loaded(move(R1, 1) + move(R2, flags) + call(REDIRECT) + end(None)) as program:
        theirs = test_run(program, bytes(64)).verdict
    NativeFrame(bytes(64)).make_current()
    assert native_library().uxdp_helper_redirect(1, flags) == theirs


FORMATS: list[tuple[bytes, tuple[int, ...]]] = [
    (b"plain", ()),
    (b"", ()),
    (b"%d %u %x", (-1, -1, -1)),
    (b"%ld %lu %lx", (-5, -5, -5)),
    (b"%lld", (7,)),
    (b"%llld", (7,)),
    (b"%5d|%-5d|%05d", (3, 4, -5)),
    (b"%+d % d %X", (3, 4, 255)),
    (b"%+u", (1,)),
    (b"%  5d", (1,)),
    (b"%-020d|", (-1,)),
    (b"%08lx", (0xABCD,)),
    (b"%d%d%d%d", (1, 2, 3)),
    (b"%s", (0,)),
    (b"%10s|", (0,)),
    (b"%sx", (0,)),
    (b"%c%5c|", (65, 66)),
    (b"%p", (0x1234,)),
    (b"%p.", (0,)),
    (b"%p5", (0,)),
    (b"%px", (0x1234,)),
    (b"%pxz", (3,)),
    (b"%pK", (0x1234,)),
    (b"%20px|", (1,)),
    (b"%pI4 %pi4", (0, 0)),
    (b"%pI6", (0,)),
    (b"%pi6", (0,)),
    (b"%pI5", (0,)),
    (b"%pR", (0,)),
    (b"%pS %ps %pB", (0x1234, 0x1234, 0x1234)),
    (b"%pks %pus", (0, 0)),
    (b"%f", (0,)),
    (b"%l", (0,)),
    (b"%hd", (0,)),
    (b"%#x", (3,)),
    (b"%.3d", (3,)),
    (b"%%", ()),
    (b"100%", ()),
    (b"a\x01", ()),
    (b"%\xc3", ()),
]


@pytest.mark.parametrize(("text", "arguments"), FORMATS, ids=[repr(text) for text, _arguments in FORMATS])
def test_trace_printk_format_equals_kernel(text: bytes, arguments: tuple[int, ...], tmp_path: Path) -> None:
    """The length, or EINVAL; what is printed can be read natively alone."""
    text += b"\0"
    padded = text.ljust(-(-len(text) // 8) * 8, b"\0")
    code = b""
    for offset in range(0, len(padded), 4):
        (word,) = struct.unpack_from("<i", padded, offset)
        code += instruction(0x62, R10, 0, offset - len(padded), word)
    code += copy(R1, R10) + instruction(0x07, R1, 0, 0, -len(padded)) + move(R2, len(text))
    for register, argument in zip((R3, R4, R5), (*arguments, 0, 0, 0), strict=False):
        code += move(register, argument)
    with loaded(code + call(TRACE_PRINTK) + end(None)) as program:
        theirs = ctypes.c_int32(test_run(program, bytes(64)).verdict).value
    trace = tmp_path / "trace"
    worker().trace_fd = descriptor = os.open(trace, os.O_CREAT | os.O_WRONLY)
    values = [argument & MASK for argument in (*arguments, 0, 0, 0)][:3]
    ours = native_library().uxdp_helper_trace_printk(text, len(text), *values)
    os.close(descriptor)
    worker().trace_fd = MASK
    assert ours == theirs
    assert len(trace.read_bytes()) == (ours + 1 if ours >= 0 else 0)
