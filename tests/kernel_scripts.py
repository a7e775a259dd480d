"""Small XDP programs, assembled here, that call helpers in the kernel: what the native library must do alike.

A script is a list of steps on one map. Keys and values lie in the packet, so one step is one helper call with packet
pointers; results are written to the end of the packet.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.native_library import KernelMap, NativeMap, OperationError

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE = 1, 2, 3
NOTHING = 0xDEAD
_HELPERS = {"lookup": MAP_LOOKUP, "update": MAP_UPDATE, "delete": MAP_DELETE}
_PROG_LOAD, _TEST_RUN = 5, 10
_XDP = 6
_MAX_FRAME_BYTES = 4096


@dataclass(frozen=True)
class Step:
    """One helper call, or ``read``: the first word of the value that the last lookup found, whatever became of it."""

    what: str
    key: bytes = b""
    value: bytes = b""
    flags: int = 0


@dataclass(frozen=True)
class RunResult:
    """What BPF_PROG_TEST_RUN gave back: the frame with its metadata, and where in that data and data_end are."""

    verdict: int
    frame: bytes
    data: int
    data_end: int


def instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """Return struct bpf_insn."""
    return struct.pack("<BBhi", code, source << 4 | destination, offset, immediate)


def move(register: int, number: int) -> bytes:
    """Set a register to a constant."""
    return instruction(0xB7, register, 0, 0, number)


def copy(register: int, source: int) -> bytes:
    """Set a register to another one."""
    return instruction(0xBF, register, source)


def packet_pointer(register: int, offset: int) -> bytes:
    """Let a register point into the packet; R7 is its start."""
    return copy(register, R7) + instruction(0x07, register, 0, 0, offset)


def call(helper: int) -> bytes:
    """Call a helper."""
    return instruction(0x85, immediate=helper)


def map_argument(fd: int) -> bytes:
    """Let R1 be a map: BPF_LD_IMM64 with BPF_PSEUDO_MAP_FD."""
    return instruction(0x18, R1, 1, 0, fd) + instruction(0)


def store_result(register: int, offset: int) -> bytes:
    """Write a register to the packet."""
    return instruction(0x7B, R7, register, offset)


def end(verdict: int | None = 2) -> bytes:
    """Return a verdict, or with None what R0 is."""
    return (move(R0, verdict) if verdict is not None else b"") + instruction(0x95)


def with_packet(body: bytes, size: int) -> bytes:
    """Let a body run with R6 the context and R7 the packet, of which so many bytes may be used."""
    code = copy(R6, R1) + instruction(0x61, R7, R1, 0) + instruction(0x61, R8, R1, 4)
    code += packet_pointer(R2, size) + move(R9, 0)
    return code + instruction(0x2D, R2, R8, len(body) // 8) + body + end()


@contextlib.contextmanager
def loaded(code: bytes) -> Iterator[int]:
    """Load an XDP program; the verifier's complaint fails the test."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 16)
    address = ctypes.addressof
    attributes = struct.pack("<IIQQ", _XDP, len(code) // 8, address(instructions), address(license_text))
    attributes += struct.pack("<IIQ", 1, len(log), address(log))
    try:
        program = KernelMap.bpf(_PROG_LOAD, attributes)[0]
    except OperationError as error:
        raise AssertionError(f"{error}: {log.value.decode()[-2000:]}") from error
    try:
        yield program
    finally:
        os.close(program)


def test_run(program: int, frame: bytes) -> RunResult:
    """Run a program once on a frame."""
    given, taken = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(_MAX_FRAME_BYTES)
    context = ctypes.create_string_buffer(struct.pack("<6I", 0, len(frame), 0, 0, 0, 0), 24)
    left = ctypes.create_string_buffer(24)
    address = ctypes.addressof
    attributes = struct.pack("<IIII", program, 0, len(frame), _MAX_FRAME_BYTES)
    attributes += struct.pack("<QQIIII", address(given), address(taken), 1, 0, 24, 24)
    attributes += struct.pack("<QQ", address(context), address(left))
    _, answer = KernelMap.bpf(_TEST_RUN, attributes)
    _, verdict, _, size = struct.unpack_from("<4I", answer)
    data, data_end = struct.unpack_from("<2I", left.raw)
    return RunResult(verdict, taken.raw[:size], data, data_end)


test_run.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's


def run_in_kernel(kernel_map: KernelMap, steps: list[Step]) -> list[int]:
    """Run a script by BPF_PROG_TEST_RUN; return what each step gave, as signed numbers."""
    packet = bytearray(16)  # longer than an Ethernet header
    places = []
    for step in steps:
        places.append((len(packet), len(packet) + len(step.key)))
        packet += step.key + step.value
    results = len(packet)
    packet += bytes(8 * len(steps))
    body = b"".join(
        _step(step, key, value, kernel_map.fd) + store_result(R0, results + 8 * number)
        for number, (step, (key, value)) in enumerate(zip(steps, places, strict=True))
    )
    with loaded(with_packet(body, len(packet))) as program:
        frame = test_run(program, bytes(packet)).frame
    return list(struct.unpack_from(f"<{len(steps)}q", frame, results))


def _step(step: Step, key: int, value: int, map_fd: int) -> bytes:
    first_word = move(R0, NOTHING) + instruction(0x15, R9, 0, 1, 0) + instruction(0x79, R0, R9, 0)
    if step.what == "read":
        return first_word
    code = packet_pointer(R2, key)
    if step.what == "update":
        code += packet_pointer(R3, value) + move(R4, step.flags)
    code += map_argument(map_fd) + call(_HELPERS[step.what])
    return code + copy(R9, R0) + first_word if step.what == "lookup" else code


def run_natively(native: NativeMap, steps: list[Step]) -> list[int]:
    """The same with the native library."""
    results = []
    address = 0
    for step in steps:
        if step.what in ("lookup", "read"):
            if step.what == "lookup":
                address = native.program_lookup(step.key)
            word = ctypes.string_at(address, 8) if address else struct.pack("<q", NOTHING)
            results.append(struct.unpack("<q", word)[0])
            continue
        try:
            if step.what == "update":
                native.program_update(step.key, step.value, step.flags)
            else:
                native.program_delete(step.key)
            results.append(0)
        except OperationError as error:
            results.append(-error.number)
    return results
