"""What a program does with an input, told by its own counters: the native code once more, compiled with them."""

import ctypes
from collections.abc import Sequence
from typing import Final, Self

from ..compile import coverage
from ..compile.compiler import NativeObject
from ..compile.program import CompiledProgram
from ..frames.generate import Frame
from ..native_side import NativeSide
from ..outcomes import GARBAGE
from ..steps import MapChange, Step
from ..stores import ControlLibrary, Stores

MAX_FRAMES: Final = 16  # of an input


_STREAMS: Final = frozenset({"ringbuf", "perf_event_array"})


def _bucket(count: int) -> int:
    """Return a bit that stands for how often: 1, 2, 3, 4-7, 8-15, 16-31, 32-127, more (as AFL has it)."""
    if count == 0:
        return 0
    limits = (1, 2, 3, 7, 15, 31, 127, 255)
    return 1 << next(index for index, limit in enumerate(limits) if count <= limit)


_BUCKETS: Final = bytes(map(_bucket, range(256)))


class Explorer:
    """A copy of a program that counts; it has stores of its own, which go along with those that are compared.

    ``seen`` has the buckets of all edges that were reached so far, a byte for each edge, as one number; who goes on
    with another explorer of the same code hands it over.
    """

    def __init__(
        self, compiled: CompiledProgram, code: NativeObject, control: ControlLibrary, cpu: int, seen: int = 0
    ) -> None:
        """Load the code that ``compile_to_explore`` made."""
        self._side = NativeSide(compiled, control, cpu, garbage=GARBAGE, burst_frames=MAX_FRAMES, code=code)
        self.seen = seen
        self.num_edges = ctypes.c_uint32.from_address(self._side.address(coverage.NUM_EDGES)).value
        num_compared = ctypes.c_uint32.from_address(self._side.address(coverage.NUM_COMPARED)).value
        self._edges = (ctypes.c_uint8 * self.num_edges).from_address(self._side.address(coverage.EDGES))
        self._compared = (ctypes.c_uint64 * (2 * num_compared)).from_address(self._side.address(coverage.COMPARED))
        self._has_records = any(store.definition.type in _STREAMS for store in self.stores)
        self._rings = [store for store in self.stores if store.definition.type == "ringbuf"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what the program asks the kernel by."""
        self._side.close()

    @property
    def stores(self) -> Stores:
        """The maps as they are now."""
        return self._side.stores

    @property
    def edges_reached(self) -> int:
        """The number of edges that were reached so far."""
        return self.num_edges - self.seen.to_bytes(self.num_edges, "little").count(0)

    def run(self, steps: Sequence[Step]) -> bool:
        """Take steps; return whether edges were reached that were not before, or that often."""
        ctypes.memset(self._edges, 0, self.num_edges)
        waiting: list[Frame] = []
        for step in steps:
            if isinstance(step, MapChange):
                self._execute(waiting)
                waiting = []
                self._side.change(step)
            else:
                waiting.append(step)
        self._execute(waiting)
        if self._has_records:
            self._side.read_records()
        for ring in self._rings:
            ring.consume_records()
        reached = int.from_bytes(bytes(self._edges).translate(_BUCKETS), "little")
        if reached & ~self.seen:
            self.seen |= reached
            return True
        return False

    def compared(self) -> list[tuple[int, int]]:
        """Return what comparisons compared last and found different."""
        values = list(self._compared)
        return [pair for pair in zip(values[::2], values[1::2], strict=True) if pair[0] != pair[1]]

    def _execute(self, frames: list[Frame]) -> None:
        for start in range(0, len(frames), MAX_FRAMES):
            self._side.execute(frames[start : start + MAX_FRAMES])
