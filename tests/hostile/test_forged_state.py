"""What programs hold of ours on their stacks (dynptrs, iterators, timers), overwritten with anything: no way out."""

import ctypes
import errno
import random
import struct

import pytest

from tests.native_library import native_library, worker
from uxdp_runtime import abi

XDP = 4 << 28  # a dynptr's type
ROUNDS = 20_000
BUFFER = 256
START, END = 64, 160  # the frame in the buffer


def function(name: str, result: type, *arguments: type):
    found = getattr(native_library(), name)
    found.restype, found.argtypes = result, arguments
    return found


@pytest.fixture
def frame():
    """A frame between bytes that are nobody's; the worker has it at hand."""
    buffer = ctypes.create_string_buffer(b"\xaa" * BUFFER, BUFFER)
    base = ctypes.addressof(buffer)
    made = abi.Frame(data=base + START, data_end=base + END, hard_start=base + START, limit=base + END)
    own, before = worker(), worker().frame
    own.frame = ctypes.addressof(made)
    yield buffer
    own.frame = before
    del made


def forged(draw: random.Random) -> ctypes.Array:
    """Return a dynptr of a frame as a program could have overwritten it: any address, any size, any offset."""
    numbers = (0, 1, 13, END - START, 96, 0xFFFF, 0x10000, 0xFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF, draw.getrandbits(32))
    size = draw.choice(numbers) & 0x8FFFFFFF | XDP
    data = struct.pack("<QII", draw.getrandbits(64) or 1, size, draw.choice(numbers))
    return ctypes.create_string_buffer(data, 16)


def test_forged_dynptr_of_a_frame_stays_in_the_frame(frame) -> None:
    u32, u64, pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    take = function("uxdp_kfunc_dynptr_slice_rdwr", pointer, pointer, u32, pointer, u32)
    write = function("uxdp_helper_dynptr_write", ctypes.c_int64, pointer, u64, pointer, u64, u64)
    fill = function("uxdp_kfunc_dynptr_memset", ctypes.c_int32, pointer, u32, u32, u32)
    copy = function("uxdp_kfunc_dynptr_copy", ctypes.c_int32, pointer, u32, pointer, u32, u32)
    draw = random.Random(1)
    base = ctypes.addressof(frame)
    source = ctypes.create_string_buffer(b"\x55" * BUFFER, BUFFER)
    given = slices = 0
    for _ in range(ROUNDS):
        dynptr, other = forged(draw), forged(draw)
        offset, size = draw.choice((0, 1, 40, 96, 0xFFFFFFFF, 0xFFFFFFF0)), draw.choice((0, 1, 14, 96, 97, 255))
        buffer = ctypes.create_string_buffer(BUFFER) if draw.random() < 0.5 else None
        address = take(dynptr, offset, buffer, size)
        if buffer is not None and address == ctypes.addressof(buffer):
            given += 1
        elif address is not None:
            slices += 1
            assert base + START <= address <= base + END - size
        write(dynptr, offset, source, size, 0)
        fill(dynptr, offset, size, 0x77)
        copy(dynptr, offset, other, draw.choice((0, 50)), size)
        assert frame.raw[:START] == b"\xaa" * START
        assert frame.raw[END:] == b"\xaa" * (BUFFER - END)
    assert given > 100
    assert slices > 100


def test_forged_iterator_over_bits_reads_its_own_places() -> None:
    following = function("uxdp_kfunc_iter_bits_next", ctypes.c_void_p, ctypes.c_void_p)
    destroy = function("uxdp_kfunc_iter_bits_destroy", None, ctypes.c_void_p)
    draw = random.Random(2)
    for _ in range(ROUNDS):
        numbers = (draw.getrandbits(64), draw.choice((0, 64, 128, 511 * 64, 0xFFFFFFFF)), draw.getrandbits(32))
        iterator = ctypes.create_string_buffer(struct.pack("<QII", *numbers), 16)
        found = following(iterator)
        assert found in (None, ctypes.addressof(iterator) + 12)
        destroy(iterator)


def test_forged_timer_is_not_initialised() -> None:
    pointer, u64, s64 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64
    start = function("uxdp_helper_timer_start", s64, pointer, u64, u64)
    cancel = function("uxdp_helper_timer_cancel", s64, pointer)
    places = 8
    memory = ctypes.create_string_buffer(1 << 16)
    struct.pack_into("<QQII", memory, 0, places, 1, 1, 1)
    own, before = worker(), worker().timers
    own.timers = ctypes.addressof(memory)
    draw = random.Random(3)
    try:
        for _ in range(ROUNDS):
            place = draw.choice((0, 7, 8, draw.getrandbits(64)))
            handle = ctypes.create_string_buffer(struct.pack("<QQ", draw.getrandbits(64), place), 16)
            assert start(handle, 1, 0) == cancel(handle) == -errno.EINVAL
    finally:
        own.timers = before
