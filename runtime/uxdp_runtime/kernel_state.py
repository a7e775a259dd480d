"""A worker's way to ask the running kernel: our program there, the page that both map, and the answers kept.

Native code that calls one of the helpers in ``compile.asking`` cannot be loaded without. The program runs in the
network namespace of the thread that asks, by BPF_PROG_TEST_RUN, for which a process needs its descriptor and no
capability. Source: native/ask.h, native/question.h, native/bpf/ask.bpf.c
"""

import ctypes
import mmap
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from uxdp_bundle.errors import UnsupportedFeatureError

from .bpf import syscall
from .bpf.libbpf import LibbpfObject
from .bpf.maps import Map
from .bpf.own_programs import own_program
from .bpf.test_run import MIN_FRAME_BYTES
from .compile.asking import HELPERS, KERNEL
from .compile.loader import undefined_names

_ROUTES: Final = 1 << 17  # UXDP_ROUTES
_ROUTE_SETS: Final = 1 << 14  # UXDP_ROUTE_SETS
_ROUTE_SLOTS: Final = 16  # UXDP_ROUTE_SLOTS
_DEVICES: Final = 64  # UXDP_DEVICES
_SOCKETS: Final = 80  # UXDP_SOCKETS
_LINE_WORDS: Final = 8
_SOCKET_WORDS: Final = 20


class SocketName(ctypes.Structure):
    """``struct uxdp_socket_name``: what a socket is looked up by."""

    _fields_ = (
        ("netns", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("lookup", ctypes.c_uint32),
        ("tuple_len", ctypes.c_uint32),
        ("tuple", ctypes.c_uint32 * 9),
        ("zero", ctypes.c_uint32),
    )


class Socket(ctypes.Structure):
    """``struct uxdp_socket``: one that a program holds."""

    _fields_ = (
        ("sock", ctypes.c_uint32 * _SOCKET_WORDS),
        ("name", SocketName),
        ("ifindex", ctypes.c_uint32),
        ("queue", ctypes.c_uint32),
        ("held", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class Device(ctypes.Structure):
    """``struct uxdp_device``: what bpf_check_mtu compares with."""

    _fields_ = (
        ("stamp", ctypes.c_uint64),
        ("ifindex", ctypes.c_uint32),
        ("mtu", ctypes.c_uint32),
        ("hard_header_len", ctypes.c_uint32),
        ("zero", ctypes.c_uint32),
    )


class Routes(ctypes.Structure):
    """``struct uxdp_routes``: answers about routes."""

    _fields_ = (
        ("used", ctypes.c_uint64),
        ("zero", ctypes.c_uint64 * 7),
        ("slots", ctypes.c_uint32 * _ROUTE_SLOTS * _ROUTE_SETS),
        ("routes", ctypes.c_uint64 * _LINE_WORDS * _ROUTES),
        ("rests", ctypes.c_uint64 * _LINE_WORDS * _ROUTES),
    )


class Kernel(ctypes.Structure):
    """``struct uxdp_kernel``: all that belongs to one worker."""

    _fields_ = (
        ("generation", ctypes.c_uint64),
        ("zero", ctypes.c_uint64 * 7),
        ("now_ns", ctypes.c_uint64),
        ("program_fd", ctypes.c_uint64),
        ("question", ctypes.c_uint64),
        ("asked", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("remembered", ctypes.c_uint64),
        ("num_sockets", ctypes.c_uint64),
        ("routes", ctypes.c_uint64),
        ("devices", Device * _DEVICES),
        ("sockets", Socket * _SOCKETS),
    )


@dataclass(frozen=True, slots=True)
class Questions:
    """How often the kernel was asked, how often it could not be, and how often an answer was still good."""

    asked: int
    failed: int
    remembered: int


class KernelState:
    """What one worker asks by. Close it, or use it as a context manager.

    Counters and devices are shared with processes that are forked later, and outlive them: one that is forked calls
    ``forget`` first. Answers about routes are each process's own, in memory that is touched as far as there are any.
    """

    def __init__(self, helpers: Iterable[str]) -> None:
        """Load our program into the kernel, and see that it may be run.

        :param helpers: names of the helpers that the network function calls, all of them
        :raises UnsupportedFeatureError: this installation has not got it
        :raises UxdpError: the kernel refuses it
        """
        may = 0
        for name in helpers:
            may |= HELPERS.get(name, 0)
        self._loaded = LibbpfObject(own_program("ask"), "uxdp")
        try:
            for table in self._loaded.maps:
                if table.section == ".rodata":
                    table.write_initial(0, may.to_bytes(4, "little"))
            self._loaded.load()
            (self.fd,) = (program.fd for program in self._loaded.programs)
            (questions,) = (table for table in self._loaded.maps if table.name == "questions")
            self._question = Map(questions.fd, name=questions.name).mmap()
            self._memory = mmap.mmap(-1, ctypes.sizeof(Kernel))
            self._kernel = Kernel.from_buffer(self._memory)
            self._routes = _private_memory(ctypes.sizeof(Routes))
            self._kernel.routes = ctypes.addressof(ctypes.c_char.from_buffer(self._routes))
            self._kernel.generation = 1
            self._kernel.program_fd = self.fd
            self._kernel.question = ctypes.addressof(ctypes.c_char.from_buffer(self._question))
            self.check()
        except BaseException:
            self._loaded.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the program; the memory stays as long as somebody has its address."""
        self._loaded.close()

    @property
    def address(self) -> int:
        """The address of struct uxdp_kernel, which the loader resolves."""
        return ctypes.addressof(self._kernel)

    @property
    def questions(self) -> Questions:
        """The counters; they only grow."""
        return Questions(self._kernel.asked, self._kernel.failed, self._kernel.remembered)

    def forget(self) -> None:
        """Let no answer be good any more. One thread at a time; the worker need not stand still."""
        self._kernel.generation += 1

    def check(self) -> None:
        """Ask nothing, to see that this process can ask in this network namespace.

        :raises UxdpError: it cannot
        """
        syscall.run_program(self.fd, bytes(MIN_FRAME_BYTES))


def _private_memory(size: int) -> mmap.mmap:
    """Return zeros, in huge pages where the system has them: lookups are all over it."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def asks_kernel(data: bytes) -> bool:
    """Return whether compiled code asks the kernel.

    :param data: what ``compile_object`` made
    """
    return KERNEL in undefined_names(data)


def kernel_state_for(data: bytes, helpers: Iterable[str]) -> KernelState | None:
    """Return what a worker needs to run compiled code; None if that asks nothing.

    :param helpers: names of the helpers that the network function calls
    :raises UxdpError: the kernel cannot be asked
    """
    return KernelState(helpers) if asks_kernel(data) else None


def refuse_questions(data: bytes, helpers: Iterable[str]) -> None:
    """Refuse compiled code that asks the kernel, where it must not be asked.

    :raises UnsupportedFeatureError: it does; the name is that of a helper
    """
    if asks_kernel(data):
        name = next((name for name in sorted(helpers) if name in HELPERS), "the kernel's state")
        raise UnsupportedFeatureError(
            name, "its answer is the running kernel's, which takes privileges to ask", remedy="go without --unverified"
        )
