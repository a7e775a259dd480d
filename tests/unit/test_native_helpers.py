"""Native helpers, as far as a kernel is not needed to say what is right."""

import ctypes
import errno
import os
import platform
import struct
import time
from pathlib import Path

import pytest

from tests.native_frames import NativeFrame
from tests.native_library import Definition, NativeMap, native_library, worker
from uxdp_runtime import abi

MASK = (1 << 64) - 1
XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)


@pytest.mark.parametrize(
    ("delta", "result"),
    [(-216, 0), (-217, -errno.EINVAL), (50, 0), (51, -errno.EINVAL), (0, 0), (-(1 << 31), -errno.EINVAL)],
)
def test_adjust_head_leaves_room_for_xdp_frame_and_ethernet_header(delta: int, result: int) -> None:
    """256 bytes of headroom, 40 of them for struct xdp_frame; 64 bytes of frame, 14 for the header."""
    frame = NativeFrame(bytes(range(64)))
    assert frame.adjust("head", delta) == result
    assert len(frame.data) == 64 - (delta if result == 0 else 0)


def test_adjust_head_takes_metadata_along() -> None:
    frame = NativeFrame(bytes(64))
    assert frame.adjust("meta", -8) == 0
    ctypes.memmove(frame.frame.data_meta, b"metadata", 8)
    assert frame.adjust("head", -20) == 0
    assert frame.metadata == b"metadata"
    assert frame.adjust("head", -(216 - 8 - 20)) == 0
    assert frame.adjust("head", -1) == -errno.EINVAL


@pytest.mark.parametrize(
    ("delta", "result"), [(-4, 0), (-252, -errno.EINVAL), (-216, 0), (-6, -errno.EACCES), (4, -errno.EINVAL), (0, 0)]
)
def test_adjust_meta_limits(delta: int, result: int) -> None:
    assert NativeFrame(bytes(64)).adjust("meta", delta) == result


def test_adjust_meta_of_port_without_metadata_is_enotsupp() -> None:
    frame = NativeFrame(bytes(64))
    frame.frame.data_meta = frame.frame.data + 1
    assert frame.adjust("meta", -4) == -524
    assert frame.adjust("head", -4) == 0
    assert frame.frame.data_meta == frame.frame.data + 1


def test_adjust_meta_more_than_252_bytes_is_eacces() -> None:
    frame = NativeFrame(bytes(400))
    frame.frame.data += 100
    frame.frame.data_meta += 100
    assert frame.adjust("meta", -256) == -errno.EACCES
    assert frame.adjust("meta", -252) == 0


@pytest.mark.parametrize("delta", [100, -50, 3520 - 64])
def test_adjust_tail_growth_is_zeroed(delta: int) -> None:
    frame = NativeFrame(b"\xff" * 64)
    ctypes.memset(frame.frame.data_end, 0xEE, 500)
    assert frame.adjust("tail", delta) == 0
    assert frame.data == (b"\xff" * 64 + bytes(max(delta, 0)))[: 64 + delta]


@pytest.mark.parametrize("delta", [3521 - 64, -51, (1 << 31) - 1])
def test_adjust_tail_beyond_limits_is_einval(delta: int) -> None:
    frame = NativeFrame(bytes(64))
    assert frame.adjust("tail", delta) == -errno.EINVAL
    assert len(frame.data) == 64


def test_bytes_are_loaded_and_stored() -> None:
    frame = NativeFrame(bytes(range(64)))
    assert frame.load(10, 4) == (0, bytes([10, 11, 12, 13]))
    assert frame.store(62, b"ab") == 0
    assert frame.data[-2:] == b"ab"
    assert frame.load(61, 4)[0] == frame.store(61, b"abcd") == -errno.EINVAL
    assert frame.load(0x10000, 1)[0] == -errno.EFAULT
    assert native_library().uxdp_helper_xdp_get_buff_len(frame.pointer) == 64


def test_csum_diff_of_ip_header_is_its_checksum() -> None:
    header = bytes.fromhex("4500003c1c4640004006 0000 ac100a63ac100a0c")
    folded = native_library().uxdp_helper_csum_diff(None, 0, header, len(header), 0)
    assert ~folded & 0xFFFF == int.from_bytes(bytes.fromhex("b1e6"), "little")


def test_redirect_notes_the_interface() -> None:
    frame = NativeFrame(bytes(64))
    frame.make_current()
    assert native_library().uxdp_helper_redirect(7, 0) == XDP_REDIRECT
    assert (frame.frame.redirect_kind, frame.frame.redirect_target) == (abi.REDIRECT_IFINDEX, 7)
    assert native_library().uxdp_helper_redirect(7, 1) == XDP_ABORTED


def test_redirect_map_notes_map_key_and_target() -> None:
    devices = NativeMap(Definition("devmap", 4, 8, 4))
    devices.update(struct.pack("<I", 2), struct.pack("<II", 9, 0))
    frame = NativeFrame(bytes(64))
    assert frame.redirect_map(devices, 2, XDP_DROP) == XDP_REDIRECT
    noted = frame.frame
    assert (noted.redirect_kind, noted.redirect_map, noted.redirect_key, noted.redirect_target) == (2, 7, 2, 9)
    assert frame.redirect_map(devices, 3, XDP_PASS) == XDP_PASS
    assert noted.redirect_kind == abi.REDIRECT_IFINDEX
    assert frame.redirect_map(devices, 3, 8 | 16) == XDP_REDIRECT  # BPF_F_BROADCAST: no key is looked up
    assert noted.redirect_flags == 8 | 16
    assert frame.redirect_map(devices, 2, 32) == XDP_ABORTED


@pytest.mark.parametrize("kind", ["cpumap", "xskmap"])
def test_redirect_map_of_other_maps_notes_the_key(kind: str) -> None:
    target = NativeMap(Definition(kind, 4, 4, 4))
    target.update(struct.pack("<I", 3), struct.pack("<I", 1))
    frame = NativeFrame(bytes(64))
    assert frame.redirect_map(target, 3, 0) == XDP_REDIRECT
    assert frame.frame.redirect_target == 3
    assert frame.redirect_map(target, 3, 8) == XDP_ABORTED


def test_clocks_follow_the_systems() -> None:
    library = native_library()
    worker().now_ns = 0
    worker().jiffies_hz = 250
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = library.uxdp_helper_ktime_get_ns()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert abs(library.uxdp_helper_ktime_get_coarse_ns() - now) < 50_000_000
    assert abs(library.uxdp_helper_ktime_get_boot_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 50_000_000
    assert abs(library.uxdp_helper_jiffies64() - ((1 << 32) - 300 * 250 + now // 4_000_000)) <= 15


def test_clock_from_ticks_stays_with_the_systems() -> None:
    """Over many bursts: never before the last, and within what two readings of the clock enclose."""
    library = native_library()
    times: list[int] = []

    @ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
    def program(_pointer: int) -> int:
        times.append(library.uxdp_helper_ktime_get_ns())
        return XDP_PASS

    ctypes.c_void_p.in_dll(library, "test_program").value = ctypes.cast(program, ctypes.c_void_p).value
    frames = (abi.Frame * 20)()
    end = time.monotonic_ns() + 1_300_000_000
    from_ticks = 0
    while time.monotonic_ns() < end:
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        times.clear()
        library.uxdp_run(frames, len(frames))
        from_ticks += worker().clock_fresh
        assert before - 1000 <= times[0]
        assert times == sorted(times)
        assert times[-1] <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 1000
    if platform.machine() == "x86_64":
        assert from_ticks


def test_fixed_clock_stands_for_all() -> None:
    library = native_library()
    worker().now_ns = 12345
    try:
        assert library.uxdp_helper_ktime_get_ns() == library.uxdp_helper_ktime_get_boot_ns() == 12345
    finally:
        worker().now_ns = 0


def test_prandom_follows_from_the_seed() -> None:
    def draw(seed: int) -> list[int]:
        for index in range(4):
            worker().prng[index] = seed + index
        return [native_library().uxdp_helper_get_prandom_u32() for _ in range(1000)]

    numbers = draw(1)
    assert numbers == draw(1) != draw(2)
    assert all(0 <= number < 1 << 32 for number in numbers)
    assert len(set(numbers[10:])) > 980


Callback = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, ctypes.c_void_p)


@pytest.mark.parametrize(
    ("loops", "stop", "flags", "expected"),
    [
        (10, 99, 0, 10),
        (10, 3, 0, 4),
        (0, 99, 0, 0),
        (10, 99, 1, -errno.EINVAL),
        ((1 << 23) + 1, 99, 0, -errno.E2BIG),
        ((1 << 32) + 2, 99, 0, 2),
    ],
    ids=["all", "stopped", "none", "flags", "too-many", "lower-half"],
)
def test_loop_counts_iterations(loops: int, stop: int, flags: int, expected: int) -> None:
    seen = []

    def callback(index: int, context: int) -> int:
        seen.append((index, context))
        return int(index == stop)

    function = Callback(callback)
    assert native_library().uxdp_helper_loop(loops, function, 42, flags) == expected
    assert seen == [(index, 42) for index in range(expected if 0 <= expected <= loops else 0)]


@pytest.mark.parametrize(("loops", "expected"), [(3, 3), ((1 << 23) + 1, -1), ((1 << 32) + 2, -1)])
def test_loop_in_place_fails_with_32_bits(loops: int, expected: int) -> None:
    function = Callback(lambda _index, _context: 0)
    error = (1 << 32) - errno.E2BIG
    assert native_library().uxdp_loop_in_place(loops, function, 42, 0) == (expected if expected >= 0 else error)


def traced(tmp_path: Path, text: bytes, *arguments: int) -> tuple[int, bytes]:
    path = tmp_path / "trace"
    worker().trace_fd = descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        values = [argument & MASK for argument in (*arguments, 0, 0, 0)][:3]
        result = native_library().uxdp_helper_trace_printk(text + b"\0", len(text) + 1, *values)
    finally:
        os.close(descriptor)
        worker().trace_fd = MASK
    return result, path.read_bytes()


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        (b"%d %u %x", (-1, 7, 255), b"-1 7 ff\n"),
        (b"%5d|%-5d|%05d", (3, 4, -5), b"    3|4    |-0005\n"),
        (b"%lld %llx\n", (-(1 << 40), 1 << 40), b"-1099511627776 10000000000\n"),
        (b"%c%%", (65,), b"A%\n"),
        (b"%px", (0x1234,), b"0000000000001234\n"),
        (b"no end of line", (), b"no end of line\n"),
    ],
)
def test_trace_printk_writes_one_line(tmp_path: Path, text: bytes, arguments: tuple[int, ...], expected: bytes) -> None:
    assert traced(tmp_path, text, *arguments)[1] == expected


def test_trace_printk_reads_strings_and_addresses_safely(tmp_path: Path) -> None:
    memory = ctypes.create_string_buffer(b"text\0" + bytes([192, 0, 2, 1]))
    place = ctypes.addressof(memory)
    assert traced(tmp_path, b"%s %pI4", place, place + 5) == (14, b"text 192.0.2.1\n")
    assert traced(tmp_path, b"[%s] %pI4", 8, 1 << 63) == (10, b"[] 0.0.0.0\n")


def test_trace_printk_without_descriptor_still_counts() -> None:
    worker().trace_fd = MASK
    assert native_library().uxdp_helper_trace_printk(b"hello\0", 6, 0, 0, 0) == 5


def test_trace_printk_long_line_is_cut(tmp_path: Path) -> None:
    result, line = traced(tmp_path, b"%1500d", 1)
    assert (result, len(line)) == (1500, 1024)


def test_run_resets_what_the_last_program_left() -> None:
    library = native_library()
    frames = (abi.Frame * 3)()
    for frame in frames:
        frame.redirect_kind, frame.tail_calls, frame.redirect_target = 2, 0, 99
    seen = []

    @ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p)
    def program(pointer: int) -> int:
        frame = abi.Frame.from_address(pointer)
        seen.append((frame.redirect_kind, frame.tail_calls, frame.redirect_target, worker().frame == pointer))
        return len(seen)

    ctypes.c_void_p.in_dll(library, "test_program").value = ctypes.cast(program, ctypes.c_void_p).value
    library.uxdp_run(frames, 3)
    assert seen == [(0, 33, 0, True)] * 3
    assert [frame.verdict for frame in frames] == [1, 2, 3]
