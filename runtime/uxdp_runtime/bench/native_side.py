"""The native side of a measurement: one compiled variant of a program with its own stores and frames.

Whose memory is whose: heads belong to the caller and are shared by all variants; frames, chunks and stores are this
object's. The structure is native/bench.c's struct uxdp_bench.
"""

import ctypes
import mmap
import time
from collections.abc import Callable
from typing import Final

from .. import abi
from ..compile.compiler import NativeObject
from ..kernel_state import kernel_state_for
from ..native_module import NativeModule
from ..stores import Stores
from .workload import HEAD_BYTES, FlowFrame

EXPORTED: Final = ("uxdp_run", "uxdp_bench_run", "uxdp_bench_empty", "uxdp_bench_fill")
BURST: Final = 64  # frames, as the AF_XDP port has it
# Headroom, the longest frame and as much behind it: an odd number of cache lines, so that chunks do not all fall into
# the same lines of a cache.
CHUNK_BYTES: Final = 35 * 64
_NUM_VERDICTS: Final = 8


class _Bench(ctypes.Structure):
    _fields_ = (
        ("heads", ctypes.c_uint64),
        ("num_flows", ctypes.c_uint64),
        ("next", ctypes.c_uint64),
        ("frames", ctypes.c_uint64),
        ("chunks", ctypes.c_uint64),
        ("chunk_bytes", ctypes.c_uint64),
        ("burst", ctypes.c_uint32),
        ("frame_bytes", ctypes.c_uint32),
        ("verdicts", ctypes.c_uint64 * _NUM_VERDICTS),
    )


class NativeSide:
    """One variant, ready to run."""

    def __init__(
        self, native: NativeObject, stores: Stores, worker: int, frame: FlowFrame, helpers: frozenset[str] = frozenset()
    ) -> None:
        """Load the code; ``native`` was compiled with EXPORTED from a program that calls these helpers."""
        self.stores = stores
        self._kernel = kernel_state_for(native.data, helpers)
        self._module = NativeModule(native.data, stores, worker, kernel=self._kernel)
        self._descriptors = (abi.Frame * BURST)()
        self._chunks = mmap.mmap(-1, BURST * CHUNK_BYTES)
        for number in range(BURST):
            start = number * CHUNK_BYTES + abi.HEADROOM
            self._chunks[start : start + len(frame.data)] = frame.data
            self._descriptors[number].ingress_ifindex = 1
        self._bench = _Bench(
            frames=ctypes.addressof(self._descriptors),
            chunks=ctypes.addressof(ctypes.c_char.from_buffer(self._chunks)),
            chunk_bytes=CHUNK_BYTES,
            burst=BURST,
            frame_bytes=len(frame.data),
        )
        self._run = self._module.function("uxdp_bench_run", None, ctypes.c_void_p, ctypes.c_uint64)
        self._empty = self._module.function("uxdp_bench_empty", None, ctypes.c_void_p, ctypes.c_uint64)
        self._heads: mmap.mmap | None = None

    def close(self) -> None:
        """Give up what the program asks the kernel by."""
        if self._kernel is not None:
            self._kernel.close()

    def use_heads(self, heads: mmap.mmap, num_flows: int) -> None:
        """Take the heads of frames, HEAD_BYTES for each flow; they are kept alive."""
        self._heads = heads
        self._bench.heads = ctypes.addressof(ctypes.c_char.from_buffer(heads))
        self._bench.num_flows = num_flows
        self._bench.next = 0

    def fill(self, heads: mmap.mmap, num_flows: int, frame: FlowFrame) -> None:
        """Write the heads of ``num_flows`` flows' frames."""
        function = self._module.function(
            "uxdp_bench_fill", None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, *(ctypes.c_uint32,) * 4
        )
        address = ctypes.addressof(ctypes.c_char.from_buffer(heads))
        function(
            *(address, num_flows, frame.data[:HEAD_BYTES]),
            *(frame.address, frame.port, frame.ip_check, frame.transport_check),
        )

    def time(self, frames: int) -> float:
        """Run the program on so many frames, rounded up to bursts; return ns per frame."""
        return self._timed(self._run, frames)

    def time_empty(self, frames: int) -> float:
        """Do the same without the program."""
        return self._timed(self._empty, frames)

    def verdicts(self) -> dict[int, int]:
        """Return how often which verdict was given since the last call; 7 stands for all from 7 on."""
        counts = {verdict: count for verdict, count in enumerate(self._bench.verdicts) if count}
        ctypes.memset(ctypes.addressof(self._bench) + _Bench.verdicts.offset, 0, ctypes.sizeof(self._bench.verdicts))
        return counts

    def _timed(self, function: Callable[..., int], frames: int) -> float:
        bursts = -(-frames // BURST)
        start = time.thread_time_ns()
        function(ctypes.addressof(self._bench), bursts)
        return (time.thread_time_ns() - start) / (bursts * BURST)
