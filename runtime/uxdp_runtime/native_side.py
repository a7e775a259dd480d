"""Native code that is run to be compared: with stores of its own, frame by frame or in bursts."""

import errno
import struct
import time
from collections.abc import Sequence
from typing import Final

from . import abi
from .compile.compiler import NativeObject
from .compile.program import CompiledProgram
from .frames.generate import Frame
from .kernel_state import kernel_state_for
from .native_module import FrameBatch, NativeModule
from .outcomes import Outcome, Records, Redirect
from .steps import MapChange
from .stores import ControlLibrary, Stores

_REDIRECT: Final = 4  # XDP_REDIRECT
# One timer that starts itself again is called so often before nobody waits for it any longer.
_TIMER_ROUNDS: Final = 10000
_BPF_F_BROADCAST: Final = 1 << 3


class NativeSide:
    """One copy of a program's native code with its stores, and how far its ring buffers were read."""

    def __init__(
        self,
        compiled: CompiledProgram,
        control: ControlLibrary,
        cpu: int,
        *,
        garbage: int,
        seed: int = 1,
        now_ns: int = 0,
        burst_frames: int = 1,
        code: NativeObject | None = None,
    ) -> None:
        """Load the code.

        :param cpu: the worker's number, and its slot in per-CPU maps
        :param garbage: the byte that ring buffers are full of before records are written
        :param seed: of random numbers
        :param now_ns: if not 0, what all clocks return
        :param burst_frames: how many frames are run at once, at most
        :param code: what to load instead of the code that is served
        """
        source = compiled.source
        self.stores = Stores(source.object, source.maps, source.num_cpus, control)
        self.stores.link_programs(source.object, source.programs)
        served = code or compiled.native
        self.kernel = kernel_state_for(served.data, compiled.helpers)
        self._module = NativeModule(served.data, self.stores, cpu, seed=seed, now_ns=now_ns, kernel=self.kernel)
        self._batch = FrameBatch(burst_frames)
        self._maps = [store.definition.name for store in self.stores]
        self._positions = {store.definition.name: 0 for store in self.stores if store.definition.type == "ringbuf"}
        self._garbage = garbage
        self._programs = source.programs
        for name in self._positions:
            self.stores[name].fill_ring(garbage)
        self._perf = {
            store.definition.name: store.perf_rings()
            for store in self.stores
            if store.definition.type == "perf_event_array"
        }

    def close(self) -> None:
        """Give up what the program asks the kernel by."""
        if self.kernel is not None:
            self.kernel.close()

    def run(self, frames: Sequence[Frame]) -> list[Outcome]:
        """Run the program on a burst of frames; the outcomes are without records."""
        self.execute(frames)
        return [self._outcome(index) for index in range(len(frames))]

    def execute(self, frames: Sequence[Frame]) -> None:
        """Run the program on a burst of frames, whatever becomes of them.

        What the kernel answered to an earlier burst is forgotten, for it may have changed since.
        """
        if self.kernel is not None:
            self.kernel.forget()
        for index, frame in enumerate(frames):
            self._batch.put(
                index, frame.data, metadata=frame.metadata, ifindex=frame.ingress_ifindex, queue=frame.rx_queue_index
            )
        self._module.run(self._batch, len(frames))

    def address(self, name: str) -> int:
        """Return the address of something that the code defines."""
        return self._module.address(name)

    def change(self, change: MapChange) -> int:
        """Change a map, or global data, as a control plane does; return the errno of a refusal, or 0."""
        if change.map not in self.stores.sections:
            return change.apply(self.stores[change.map])
        if change.value is None:
            return errno.EINVAL  # as of every array
        self.stores.section(change.map)[: len(change.value)] = change.value
        return 0

    def link(self, name: str, key: bytes, program: str) -> None:
        """Put a program into a prog_array."""
        self.stores[name].update(key, struct.pack("=I", self._programs.index(program) + 1))

    @property
    def has_timers(self) -> bool:
        """Whether a map of the program can have timers."""
        return self.stores.timers != 0

    def settle_timers(self, within_ns: int) -> bool:
        """Call the timers that are due within that time; return whether none of them was started again all the time.

        A worker with a clock of its own is in that future at once, the others are when the time has passed.
        """
        until = (self._module.worker.now_ns or time.monotonic_ns()) + within_ns
        rounds = 0
        while 0 < self._module.next_timer_ns <= until and rounds < _TIMER_ROUNDS:
            wait_ns = 0 if self._module.worker.now_ns else self._module.next_timer_ns - time.monotonic_ns()
            time.sleep(max(0, wait_ns) / 1e9)
            self._module.run_timers(self._module.next_timer_ns)
            rounds += 1
        return rounds < _TIMER_ROUNDS

    def read_records(self) -> tuple[Records, ...]:
        """Return what was added to the ring buffers since the last call, which stays in them, and the perf samples."""
        records = []
        for name, position in self._positions.items():
            submitted, end = self.stores[name].read_records(position)
            records.append(Records(name, end - position, tuple(submitted)))
            self._positions[name] = end
        for name, rings in self._perf.items():
            # The kernel's samples are filled up so that they end at a multiple of 8 bytes, behind their length.
            samples = tuple(
                sample + bytes([self._garbage]) * (-(len(sample) + 4) % 8)
                for ring in rings
                for sample in ring.consume_records()
            )
            records.append(Records(name, sum(map(len, samples)), samples))
        return tuple(records)

    def empty_ring(self, name: str) -> None:
        """Take all records out of a ring buffer, and leave garbage."""
        self.stores[name].consume_records()
        self.stores[name].fill_ring(self._garbage)

    def _outcome(self, index: int) -> Outcome:
        result = self._batch.result(index)
        redirect = self._redirect(index) if result.verdict == _REDIRECT else None
        return Outcome(result.verdict, result.data, result.metadata, redirect)

    def _redirect(self, index: int) -> Redirect:
        noted = self._batch.descriptors[index]
        if noted.redirect_kind != abi.REDIRECT_MAP:
            return Redirect(None, noted.redirect_target & 0xFFFFFFFF)
        name = self._maps[noted.redirect_map]
        return Redirect(name, noted.redirect_key, bool(noted.redirect_flags & _BPF_F_BROADCAST))
