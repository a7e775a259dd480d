"""What a program may read by an address: its own memory, to its end and no further."""

import ctypes
import errno

import pytest

from tests.native_library import native_library, worker
from uxdp_runtime import abi

TEXT = b"abcdefgh\0ijk"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch):
    """A piece of memory that is known, between such as is not."""
    buffer = ctypes.create_string_buffer(b"<" * 32 + TEXT + b">" * 32, 128)
    start = ctypes.addressof(buffer) + 32
    ranges = (abi.Range * 1)(abi.Range(start, start + len(TEXT)))
    own = worker()
    before = (own.memory, own.num_memory, own.frame, own.stack_top)
    own.memory, own.num_memory, own.frame, own.stack_top = ctypes.addressof(ranges), 1, 0, 0
    yield start
    own.memory, own.num_memory, own.frame, own.stack_top = before
    del buffer, ranges


def read(address: int, size: int) -> tuple[int, bytes]:
    target = ctypes.create_string_buffer(b"\xee" * size, max(size, 1))
    function = native_library().uxdp_helper_probe_read_kernel
    function.restype = ctypes.c_int64
    function.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    return function(target, size, address), target.raw[:size]


def test_known_memory_is_read_to_its_end(memory: int) -> None:
    assert read(memory, len(TEXT)) == (0, TEXT)
    assert read(memory + 3, 2) == (0, b"de")
    assert read(memory, len(TEXT) + 1) == (-errno.EFAULT, bytes(len(TEXT) + 1))
    assert read(memory + len(TEXT) - 1, 2) == (-errno.EFAULT, bytes(2))


@pytest.mark.parametrize("offset", [-1, len(TEXT), len(TEXT) + 1])
def test_memory_beside_is_not_read(memory: int, offset: int) -> None:
    assert read(memory + offset, 1) == (-errno.ERANGE, bytes(1))


def test_addresses_of_the_upper_half_are_of_nothing(memory: int) -> None:
    assert read(1 << 63, 4) == (-errno.EFAULT, bytes(4))
    assert read((1 << 64) - 2, 4) == (-errno.EFAULT, bytes(4))
    assert read(0, 4) == (-errno.ERANGE, bytes(4))


def test_frame_at_hand_is_known_with_its_headroom(memory: int) -> None:
    buffer = ctypes.create_string_buffer(bytes(range(100)), 100)
    start = ctypes.addressof(buffer)
    frame = abi.Frame(hard_start=start + 10, limit=start + 90, data=start + 20, data_end=start + 80)
    worker().frame = ctypes.addressof(frame)
    assert read(start + 10, 80) == (0, bytes(range(10, 90)))
    assert read(start + 9, 1)[0] == -errno.ERANGE
    assert read(start + 89, 2)[0] == -errno.EFAULT


def test_string_that_goes_on_behind_what_is_known_is_efault(memory: int) -> None:
    function = native_library().uxdp_kfunc_strlen
    function.restype = ctypes.c_int32
    function.argtypes = (ctypes.c_uint64,)
    assert function(memory) == 8
    assert function(memory + 9) == -errno.EFAULT
    assert function(memory + len(TEXT)) == -errno.ERANGE
