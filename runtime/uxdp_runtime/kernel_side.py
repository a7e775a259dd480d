"""A program in the kernel that native code is compared with: with the kernel's maps, by BPF_PROG_TEST_RUN.

Records are read after every frame and stay in their ring buffer until it has been full for a while: so a program that
finds no room is compared, too.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final, Self

from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.manifest import MapDefinition

from .bpf.inner_maps import KernelMaps
from .bpf.maps import Map
from .bpf.perf_buffer import PerfBuffer
from .bpf.ring_buffer import RingBuffer
from .bpf.test_run import TestRunner
from .errors import BpfError
from .frames.generate import Frame
from .outcomes import VERDICTS, Outcome, Records, Redirect
from .redirects import RedirectTwin, redirects
from .steps import MapChange
from .verify import VerifiedObject

_REDIRECT: Final = VERDICTS.index("REDIRECT")
# How many frames meet a ring buffer that is as good as full before it is emptied.
_FRAMES_WHILE_FULL: Final = 64


class KernelSide:
    """A verified program and its maps. Use it as a context manager, which keeps the thread on one CPU, ``cpu``.

    ``targets_not_compared`` counts redirected frames of which it is not known where they go, by the reason.
    """

    def __init__(self, verified: VerifiedObject, entry: str, maps: Sequence[MapDefinition]) -> None:
        """Prepare to run a program.

        :raises UnsupportedFeatureError: the kernel does not run the program in a test
        """
        program = verified.programs[entry]
        program.check_runs_in_kernel("in a test")
        self.cpu = min(os.sched_getaffinity(0))
        self.twin: RedirectTwin | None = None
        self.targets_not_compared: Counter[str] = Counter()
        self._verified = verified
        self._entry = entry
        self._definitions = maps
        self._maps = KernelMaps(maps, verified.maps)
        self._runner = TestRunner(program.fd)
        self._no_twin = ""
        self._rings: list[_Ring] = []
        self._perf: list[_Perf] = []
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The kernel runs the program where this thread is: per-CPU slots must not wander.
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, {self.cpu})
            if redirects(self._verified):
                try:
                    self.twin = stack.enter_context(RedirectTwin(self._verified, self._entry))
                except UnsupportedFeatureError as reason:
                    self._no_twin = str(reason)
            for definition in self._definitions:
                if definition.type == "ringbuf":
                    ring = stack.enter_context(RingBuffer(self._verified.maps[definition.name]))
                    self._rings.append(_Ring(definition.name, ring, definition.max_entries))
            for definition in self._definitions:
                if definition.type == "perf_event_array":
                    samples = stack.enter_context(PerfBuffer(self._verified.maps[definition.name]))
                    self._perf.append(_Perf(definition.name, samples))
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._rings.clear()
        self._perf.clear()
        self.twin = None
        self._resources.close()

    def fill(self, name: str, elements: Sequence[tuple[bytes, bytes]]) -> None:
        """Set elements of a map; devices that a devmap names need not exist here if redirects can be followed."""
        if self.twin is not None:
            self.twin.fill(name, elements, self._maps)
        else:
            self._maps.update(name, elements)

    def link(self, name: str, key: bytes, program: str) -> None:
        """Put a program into a prog_array."""
        self._verified.maps[name].update(key, struct.pack("=I", self._verified.programs[program].fd))
        if self.twin is not None:
            self.twin.link(name, key, program)

    def change(self, change: MapChange) -> int:
        """Change a map, or global data, as a control plane does; return the errno of a refusal, or 0."""
        if self.twin is not None:
            return self.twin.change(change, self._maps)
        with self._maps.open(change.map) as original:
            return change.apply(original)

    def run(self, frame: Frame) -> Outcome:
        """Run the program on a frame."""
        result = self._runner.run(
            frame.data, metadata=frame.metadata, ifindex=frame.ingress_ifindex, queue=frame.rx_queue_index
        )
        redirect = self._target(frame, result.verdict)
        return Outcome(
            *(result.verdict, result.frame, result.metadata, redirect),
            (*(ring.advance() for ring in self._rings), *(perf.advance() for perf in self._perf)),
        )

    def items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the elements of a map."""
        return self._maps.items(name)

    def values(self, name: str) -> list[bytes]:
        """Return the values of a queue or stack."""
        with self._maps.open(name) as opened:
            assert isinstance(opened, Map)  # noqa: S101  # it is no map of maps
            return opened.values()

    def section(self, name: str) -> bytes:
        """Return global data."""
        return self._verified.maps[name].lookup(bytes(4))

    def full_rings(self) -> Iterator[str]:
        """Yield the ring buffers that have been as good as full for a while."""
        for ring in self._rings:
            if ring.frames_while_full >= _FRAMES_WHILE_FULL:
                yield ring.map

    def empty_ring(self, name: str) -> None:
        """Take all records out of a ring buffer."""
        for ring in self._rings:
            if ring.map == name:
                ring.empty()
        if self.twin is not None:
            self.twin.release_records(name)

    def _target(self, frame: Frame, verdict: int) -> Redirect | None:
        """Return where the kernel sends a frame that it redirects; None if it does not, or if that is not known."""
        redirect = None
        reason = self._no_twin
        if self.twin is not None:
            try:
                redirect = self.twin.run(frame)
                reason = "a second run in the kernel did not redirect the frame"
            except BpfError as refused:
                # What it has not seen the twin does not remember: no later answer can be trusted.
                size = f"{len(frame.data)} bytes and {len(frame.metadata)} of metadata"
                self._no_twin = reason = f"the kernel does not redirect a frame of {size} in a test: {refused}"
                self.twin = None
        if verdict != _REDIRECT:
            return None
        if redirect is None:
            self.targets_not_compared[reason] += 1
        return redirect


class _Ring:
    """One ring buffer of the kernel: how far it was read, and for how many frames it has been as good as full."""

    def __init__(self, name: str, kernel: RingBuffer, size_bytes: int) -> None:
        self.map = name
        self.frames_while_full = 0
        self._kernel = kernel
        self._size_bytes = size_bytes
        self._position = 0
        self._emptied_at = 0
        self._most_bytes = 0

    def advance(self) -> Records:
        """Return what was added since the last call."""
        submitted, end = self._kernel.read(self._position)
        added = end - self._position
        self._position = end
        self._most_bytes = max(self._most_bytes, added)
        if self._position - self._emptied_at + self._most_bytes > self._size_bytes:
            self.frames_while_full += 1
        return Records(self.map, added, tuple(submitted))

    def empty(self) -> None:
        """Give the kernel all room back."""
        self._kernel.release()
        self._emptied_at = self._position
        self.frames_while_full = 0


class _Perf:
    """The samples that go to one perf_event_array of the kernel; they are taken at once."""

    def __init__(self, name: str, kernel: PerfBuffer) -> None:
        self._name = name
        self._kernel = kernel

    def advance(self) -> Records:
        """Return what was added since the last call."""
        samples = tuple(self._kernel.take())
        return Records(self._name, sum(map(len, samples)), samples)
