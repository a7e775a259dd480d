"""A compiled program in this process: one copy of its code for each worker, and frames to run it on.

A module is loaded once per worker, because the addresses of the worker's own memory (its slots in per-CPU maps, its
random state) are resolved into the code. Stores are shared by all workers.
"""

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from . import abi
from .bpf.cpus import numa_node
from .compile.asking import KERNEL
from .compile.loader import Function, LoadedObject
from .errors import ParameterError
from .kernel_state import KernelState
from .stores import Stores, libc_symbols

_CLOCK_MONOTONIC_COARSE: Final = 6  # include/uapi/linux/time.h; Python has no name for it
# What BPF_PROG_TEST_RUN gives a frame: a page with 256 bytes of headroom, and struct skb_shared_info (320 bytes on
# 64-bit machines, SKB_DATA_ALIGN) kept free behind the tailroom. Source: net/bpf/test_run.c, bpf_prog_test_run_xdp
CHUNK_BYTES: Final = 4096
TAIL_RESERVE_BYTES: Final = 320
MAX_FRAME_BYTES: Final = CHUNK_BYTES - abi.HEADROOM - TAIL_RESERVE_BYTES


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What became of a frame: its bytes and metadata afterwards, the verdict and a redirect's target."""

    verdict: int
    data: bytes
    metadata: bytes
    redirect: tuple[int, int, int, int] | None  # kind, map number, key, target


class FrameBatch:
    """Memory for up to ``capacity`` frames, and their descriptors."""

    def __init__(self, capacity: int) -> None:
        """Allocate chunks of CHUNK_BYTES."""
        self.capacity = capacity
        self._memory = mmap.mmap(-1, capacity * CHUNK_BYTES)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.descriptors = (abi.Frame * capacity)()

    def put(self, index: int, data: bytes, *, metadata: bytes = b"", ifindex: int = 1, queue: int = 0) -> None:
        """Place a frame behind the headroom of a chunk, its metadata in front of it.

        :raises ParameterError: a frame that does not fit
        """
        if len(data) > MAX_FRAME_BYTES or len(metadata) > abi.HEADROOM:
            raise ParameterError(f"{len(data)} bytes, at most {MAX_FRAME_BYTES} fit a buffer", context="frame")
        start = index * CHUNK_BYTES
        place = start + abi.HEADROOM
        self._memory[start : start + CHUNK_BYTES] = bytes(CHUNK_BYTES)
        self._memory[place - len(metadata) : place + len(data)] = metadata + data
        frame = self.descriptors[index]
        frame.hard_start = self._base + start
        frame.limit = self._base + start + CHUNK_BYTES - TAIL_RESERVE_BYTES
        frame.data = self._base + place
        frame.data_meta = frame.data - len(metadata)
        frame.data_end = frame.data + len(data)
        frame.ingress_ifindex = ifindex
        frame.rx_queue_index = queue
        frame.egress_ifindex = 0

    def result(self, index: int) -> FrameResult:
        """Return what became of a frame that was run."""
        frame = self.descriptors[index]
        meta, start, end = (int(x) - self._base for x in (frame.data_meta, frame.data, frame.data_end))
        redirect = None
        if frame.redirect_kind != abi.REDIRECT_NONE:
            redirect = (frame.redirect_kind, frame.redirect_map, frame.redirect_key, frame.redirect_target)
        # A program that invalidates its metadata sets data_meta behind data (xdp_set_data_meta_invalid).
        metadata = self._memory[meta:start] if meta < start else b""
        return FrameResult(frame.verdict, self._memory[start:end], metadata, redirect)


class NativeModule:
    """The code of one program for one worker."""

    def __init__(
        self,
        data: bytes,
        stores: Stores,
        worker: int,
        *,
        seed: int = 1,
        now_ns: int = 0,
        trace_fd: int = -1,
        kernel: KernelState | None = None,
        runs_onward: bool = False,
    ) -> None:
        """Load a compiled object.

        :param data: what ``compile_object`` made
        :param worker: number of the worker, its slot in per-CPU maps
        :param seed: of bpf_get_prandom_u32
        :param now_ns: if not 0, what all clocks return
        :param kernel: what the program asks the kernel by; borrowed
        :param runs_onward: whether programs in the values of devmaps and cpumaps run on what is redirected there
        :raises NativeObjectError: the program asks the kernel, and there is nothing to ask by
        """
        state = seed or 1
        words = []
        for _ in range(4):  # splitmix64, as xoshiro's authors recommend for seeding
            state = (state + 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
            mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & ((1 << 64) - 1)
            mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & ((1 << 64) - 1)
            words.append(mixed ^ mixed >> 31)
        self.worker = abi.Worker(
            cpu=worker,
            num_cpus=stores.num_cpus,
            prng=(ctypes.c_uint64 * 4)(*words),
            now_ns=now_ns,
            jiffies_hz=kernel_hz(),
            trace_fd=trace_fd & ((1 << 64) - 1),
            numa_node=numa_node(min(os.sched_getaffinity(0))),
            timers=stores.timers,
            next_timer_ns=stores.next_timer(worker),
            runs_onward=runs_onward,
        )
        self.kernel = kernel
        self._never = ctypes.c_uint64(0)
        self._stores = stores
        symbols: Mapping[str, int] = {
            **stores.symbols(worker),
            **libc_symbols(),
            "uxdp_worker": ctypes.addressof(self.worker),
            **({KERNEL: kernel.address} if kernel is not None else {}),
        }
        self._object = LoadedObject(data, symbols)
        known = [*stores.memory(), *self._object.constants]
        self._memory = (abi.Range * len(known))(*(abi.Range(start, start + size) for start, size in known))
        self.worker.memory = ctypes.addressof(self._memory)
        self.worker.num_memory = len(known)
        self._run = self._object.function("uxdp_run", None, ctypes.c_void_p, ctypes.c_uint32)
        # The maps' definitions and places, by the numbers that redirect_map holds.
        self.maps = stores.descriptors()

    @property
    def run_address(self) -> int:
        """The address of ``uxdp_run``, for callers that are no Python."""
        return self._object.address("uxdp_run")

    @property
    def run_mbufs_address(self) -> int:
        """The address of ``uxdp_run_mbufs``; 0: the program asks for more than that gives it."""
        takes = self._object.function("uxdp_takes_mbufs", ctypes.c_uint8)() & 1
        return self._object.address("uxdp_run_mbufs") if takes else 0

    @property
    def asks_for_room(self) -> bool:
        """Whether the program asks where frames' buffers begin or end; else it moves no end of a frame."""
        return bool(self._object.function("uxdp_asks_for_room", ctypes.c_uint8)() & 1)  # one bit is said

    def address(self, name: str) -> int:
        """Return the address of something that the object defines."""
        return self._object.address(name)

    @property
    def functions(self) -> tuple[Function, ...]:
        """The functions of the loaded code."""
        return self._object.functions

    def function(self, name: str, result: type | None, *arguments: type) -> Callable[..., int]:
        """Return another function that the object defines."""
        return self._object.function(name, result, *arguments)

    @property
    def next_timer_ns(self) -> int:
        """When the next timer is due, by CLOCK_MONOTONIC; 0: none is started."""
        return ctypes.c_uint64.from_address(self.next_timer_address).value

    @property
    def next_timer_address(self) -> int:
        """Where ``next_timer_ns`` is, for callers that are no Python."""
        return int(self.worker.next_timer_ns) or ctypes.addressof(self._never)

    def run_timers(self, now_ns: int) -> None:
        """Call the timers that are due by a time, as many as are started now.

        :raises NativeObjectError: the code has none
        """
        self._object.function("uxdp_run_timers", None, ctypes.c_uint64)(now_ns)

    def run(self, batch: FrameBatch, count: int) -> None:
        """Run the program on the first ``count`` frames of a batch."""
        self._run(ctypes.addressof(batch.descriptors), count)


def kernel_hz() -> int:
    """Return CONFIG_HZ, which bpf_jiffies64 counts in: the coarse clock moves once per jiffy."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))
