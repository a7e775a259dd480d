"""Run the same frames in the kernel and natively, with state carried along, and find the first difference.

The kernel's BPF_PROG_TEST_RUN is the specification. Both sides begin with the same maps; for every frame the verdict,
the bytes, the metadata, a redirect's target and the records in ring buffers must be equal, and in the end the maps. The
kernel runs on one CPU, whose number the native worker takes, so per-CPU maps are comparable slot by slot.

A redirect's target comes from a second copy of the program in the kernel (see redirects). Where that cannot tell, the
target is not compared; ``targets_not_compared`` says how often and why.

Records are read after every frame and stay in their ring buffer until it has been full for a while: so a program that
finds no room is compared, too.

Time and random numbers differ between two runs in the kernel, too. So the native code runs twice, the second time (the
shadow) with another clock and other random numbers: 8-byte words of map values and records on which the two native runs
disagree depend on time or chance and are left out of the comparison, and so is a frame on which they disagree
(``left_out`` counts them). Ring buffers of the two hold different garbage before a record is written, which tells the
bytes that a program leaves as they were. The order of a hash map's elements means nothing; they are compared as sets.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self

from uxdp_bundle.errors import UnsupportedFeatureError

from . import abi
from .bpf.cpus import num_possible_cpus
from .bpf.ring_buffer import RingBuffer
from .bpf.test_run import TestRunner
from .compile.program import CompiledProgram
from .errors import BpfError
from .frames.generate import Frame
from .native_module import FrameBatch, NativeModule
from .redirects import Redirect, RedirectTwin, redirects
from .stores import ControlLibrary, Store, Stores

# Maps whose elements programs cannot write and that the comparison therefore leaves out.
_REFERENCES: Final = frozenset(
    {"prog_array", "devmap", "devmap_hash", "cpumap", "xskmap", "array_of_maps", "hash_of_maps"}
)
# The shadow's clock: every byte differs from those of a real time in ns since boot, now and for the next centuries.
_SHADOW_CLOCK_NS: Final = 0x7A7B_7C7D_7E7F_7071
_SHADOW_SEED: Final = 2
# What records hold where a program wrote nothing: in the native code's ring buffers, and in the shadow's.
_GARBAGE: Final = 0x5A
_SHADOW_GARBAGE: Final = 0xA5
_WORD_BYTES: Final = 8
# Their elements come in the same order on both sides.
_ARRAYS: Final = frozenset({"array", "percpu_array"})
_PIECE: Final = 4096
_STREAMS: Final = frozenset({"ringbuf", "perf_event_array"})
VERDICTS: Final = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")
_BPF_F_BROADCAST: Final = 1 << 3
_REDIRECT: Final = VERDICTS.index("REDIRECT")
# How many frames meet a ring buffer that is as good as full before it is emptied.
_FRAMES_WHILE_FULL: Final = 64


def verdict_name(verdict: int) -> str:
    """Return a verdict's name, or its number if it is none of enum xdp_action."""
    return VERDICTS[verdict] if 0 <= verdict < len(VERDICTS) else str(verdict)


@dataclass(frozen=True, slots=True)
class Records:
    """What a frame added to one ring buffer: the bytes that were reserved, and the records that were submitted."""

    map: str
    reserved_bytes: int
    submitted: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a frame. ``redirect`` is None if the target is not known, or there is none."""

    verdict: int
    data: bytes
    metadata: bytes
    redirect: Redirect | None = None
    records: tuple[Records, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """The first frame on which kernel and native code differ, and in what: verdict, bytes, metadata, redirect target or
    ring-buffer records."""

    number: int
    frame: Frame
    kernel: Outcome
    native: Outcome
    what: str


@dataclass(frozen=True, slots=True)
class MapDifference:
    """An element that kernel and native map do not agree on; None: it is not there.

    ``blamed`` is the native value with the kernel's words where time or chance decide: what is left of the difference.
    """

    map: str
    key: bytes
    kernel: bytes | None
    native: bytes | None
    blamed: bytes | None


class Differential:
    """A verified program and its native code, side by side. Use it as a context manager.

    ``left_out`` counts frames that depend on time or chance, ``targets_not_compared`` redirected frames by the reason.
    """

    def __init__(self, compiled: CompiledProgram, control: ControlLibrary) -> None:
        """Load the native code, with stores like the kernel's maps."""
        self._verified = compiled.verified
        source = compiled.source
        self._entry = source.entry
        self._runner = TestRunner(compiled.verified.programs[source.entry].fd)
        self._cpus = os.sched_getaffinity(0)
        self._cpu = min(self._cpus)
        self._native = _NativeSide(compiled, control, self._cpu, garbage=_GARBAGE)
        self._shadow = _NativeSide(
            compiled, control, self._cpu, seed=_SHADOW_SEED, now_ns=_SHADOW_CLOCK_NS, garbage=_SHADOW_GARBAGE
        )
        self._twin: RedirectTwin | None = None
        self._no_twin = ""
        self._rings: list[_Ring] = []
        self._resources = ExitStack()
        self.left_out = 0
        self.targets_not_compared: Counter[str] = Counter()

    @property
    def stores(self) -> Stores:
        """The native side's maps."""
        return self._native.stores

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The kernel runs the program where this thread is: per-CPU slots must not wander.
            stack.callback(os.sched_setaffinity, 0, self._cpus)
            os.sched_setaffinity(0, {self._cpu})
            if redirects(self._verified):
                try:
                    self._twin = stack.enter_context(RedirectTwin(self._verified, self._entry))
                except UnsupportedFeatureError as reason:
                    self._no_twin = str(reason)
            for store in self.stores:
                if store.definition.type == "ringbuf":
                    name = store.definition.name
                    kernel = stack.enter_context(RingBuffer(self._verified.maps[name]))
                    self._rings.append(_Ring(name, kernel, store.definition.max_entries))
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._rings.clear()
        self._twin = None
        self._resources.close()

    def fill(self, contents: Mapping[str, Iterable[tuple[bytes, bytes]]]) -> None:
        """Give both sides the same elements: map name -> (key, value) pairs as bpf(2) takes them.

        Devices that a devmap names need not exist here if the program's redirects can be compared.
        """
        for name, items in contents.items():
            elements = tuple(items)
            if self._twin is not None:
                self._twin.fill(name, elements, self._verified.maps[name])
            for key, value in elements:
                if self._twin is None:
                    self._verified.maps[name].update(key, value)
                for side in (self._native, self._shadow):
                    side.stores[name].update(key, value)

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Outcome, FrameDifference | None]]:
        """Run frame by frame on both sides; yield what the kernel made of each, and the difference if there is one."""
        for number, frame in enumerate(frames):
            kernel = self._in_kernel(frame)
            native, shadow = (side.run(frame) for side in (self._native, self._shadow))
            if _core(native) != _core(shadow):
                self.left_out += 1
                what = ""
            else:
                what = _difference(kernel, native, shadow)
            yield frame, kernel, FrameDifference(number, frame, kernel, native, what) if what else None
            self._empty_rings()

    def map_differences(self) -> Iterator[MapDifference]:
        """Yield the elements that differ now, map by map."""
        for store in self.stores:
            definition = store.definition
            if definition.type in _REFERENCES or definition.type in _STREAMS:
                continue
            shadow = self._shadow.stores[definition.name]
            for kernel, native in self._elements(store):
                for key in sorted(kernel.keys() | native.keys()):
                    if kernel.get(key) != native.get(key):
                        sides = (kernel.get(key), native.get(key), shadow.lookup(key))
                        yield from _map_difference(definition.name, key, *sides)
        for name in self.stores.sections:
            data = (bytes(stores.section(name)) for stores in (self.stores, self._shadow.stores))
            yield from _map_difference(name, bytes(4), self._verified.maps[name].lookup(bytes(4)), *data)

    def _elements(self, store: Store) -> Iterator[tuple[dict[bytes, bytes], dict[bytes, bytes]]]:
        """Yield the elements of a map on both sides, without pieces of an array that are equal."""
        kernel, native = self._verified.maps[store.definition.name].items(), store.items()
        if store.definition.type not in _ARRAYS:
            yield dict(kernel), dict(native)
            return
        while True:
            here, there = (list(islice(items, _PIECE)) for items in (kernel, native))
            if here != there:
                yield dict(here), dict(there)
            if not here and not there:
                return

    def _in_kernel(self, frame: Frame) -> Outcome:
        result = self._runner.run(frame.data, metadata=frame.metadata)
        redirect = self._target(frame, result.verdict)
        return Outcome(
            result.verdict, result.frame, result.metadata, redirect, tuple(ring.advance() for ring in self._rings)
        )

    def _target(self, frame: Frame, verdict: int) -> Redirect | None:
        """Return where the kernel sends a frame that it redirects; None if it does not, or if that is not known."""
        redirect = None
        reason = self._no_twin
        if self._twin is not None:
            try:
                redirect = self._twin.run(frame)
                reason = "a second run in the kernel did not redirect the frame"
            except BpfError as refused:
                # What it has not seen the twin does not remember: no later answer can be trusted.
                size = f"{len(frame.data)} bytes and {len(frame.metadata)} of metadata"
                self._no_twin = reason = f"the kernel does not redirect a frame of {size} in a test: {refused}"
                self._twin = None
        if verdict != _REDIRECT:
            return None
        if redirect is None:
            self.targets_not_compared[reason] += 1
        return redirect

    def _empty_rings(self) -> None:
        """Empty the ring buffers that were full for a while, on all sides at once."""
        for ring in self._rings:
            if ring.frames_while_full >= _FRAMES_WHILE_FULL:
                ring.empty()
                for side in (self._native, self._shadow):
                    side.empty_ring(ring.map)
                if self._twin is not None:
                    self._twin.release_records(ring.map)


class _NativeSide:
    """One copy of the native code with its stores, and how far its ring buffers were read."""

    def __init__(
        self,
        compiled: CompiledProgram,
        control: ControlLibrary,
        cpu: int,
        *,
        garbage: int,
        seed: int = 1,
        now_ns: int = 0,
    ) -> None:
        source = compiled.source
        self.stores = Stores(source.object, source.maps, source.num_cpus, control)
        self.stores.link_programs(source.object, source.programs)
        self.module = NativeModule(compiled.native.data, self.stores, cpu, seed=seed, now_ns=now_ns)
        self._batch = FrameBatch(1)
        self._maps = [store.definition.name for store in self.stores]
        self._positions = {store.definition.name: 0 for store in self.stores if store.definition.type == "ringbuf"}
        self._garbage = garbage
        for name in self._positions:
            self.stores[name].fill_ring(garbage)

    def run(self, frame: Frame) -> Outcome:
        """Run the program on one frame."""
        self._batch.put(
            0, frame.data, metadata=frame.metadata, ifindex=frame.ingress_ifindex, queue=frame.rx_queue_index
        )
        self.module.run(self._batch, 1)
        result = self._batch.result(0)
        redirect = self._redirect() if result.verdict == _REDIRECT else None
        records = []
        for name, position in self._positions.items():
            submitted, end = self.stores[name].read_records(position)
            records.append(Records(name, end - position, tuple(submitted)))
            self._positions[name] = end
        return Outcome(result.verdict, result.data, result.metadata, redirect, tuple(records))

    def empty_ring(self, name: str) -> None:
        """Take all records out of a ring buffer, and leave garbage."""
        self.stores[name].consume_records()
        self.stores[name].fill_ring(self._garbage)

    def _redirect(self) -> Redirect:
        noted = self._batch.descriptors[0]
        if noted.redirect_kind != abi.REDIRECT_MAP:
            return Redirect(None, noted.redirect_target & 0xFFFFFFFF)
        name = self._maps[noted.redirect_map]
        return Redirect(name, noted.redirect_key, bool(noted.redirect_flags & _BPF_F_BROADCAST))


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


def _core(outcome: Outcome) -> tuple[int, bytes, bytes]:
    return outcome.verdict, outcome.data, outcome.metadata


def _difference(kernel: Outcome, native: Outcome, shadow: Outcome) -> str:
    """Say in what kernel and native outcome differ first; nothing if in nothing, or by chance."""
    if kernel.verdict != native.verdict:
        return "verdict"
    if kernel.data != native.data:
        return "bytes"
    if kernel.metadata != native.metadata:
        return "metadata"
    if kernel.redirect is not None and kernel.redirect != native.redirect == shadow.redirect:
        return "redirect target"
    if not all(map(_same_records, kernel.records, native.records, shadow.records)):
        return "ring-buffer records"
    return ""


def _same_records(kernel: Records, native: Records, shadow: Records) -> bool:
    """Whether both sides wrote the same records, but for words that depend on time or chance."""
    shapes = [(side.reserved_bytes, [len(record) for record in side.submitted]) for side in (kernel, native, shadow)]
    if shapes[1] != shapes[2]:
        return True  # how many there are depends on chance itself
    return shapes[0] == shapes[1] and all(map(_same_record, kernel.submitted, native.submitted, shadow.submitted))


def _same_record(kernel: bytes, native: bytes, shadow: bytes) -> bool:
    if kernel == native:
        return True
    written = bytes(
        not (one == _GARBAGE and other == _SHADOW_GARBAGE) for one, other in zip(native, shadow, strict=True)
    )
    sides = (
        bytes(byte if kept else 0 for byte, kept in zip(side, written, strict=True))
        for side in (kernel, native, shadow)
    )
    one, *others = sides
    return one == _without_chance(one, *others)


def _map_difference(
    name: str, key: bytes, kernel: bytes | None, native: bytes | None, shadow: bytes | None
) -> Iterator[MapDifference]:
    """Yield what differs for certain, or nothing.

    An element that only one of the two native runs has is there by chance itself.
    """
    if native is None or shadow is None or kernel is None:
        if (native is None) == (shadow is None):
            yield MapDifference(name, key, kernel, native, None)
        return
    blamed = _without_chance(kernel, native, shadow)
    if blamed != kernel:
        yield MapDifference(name, key, kernel, native, blamed)


def _without_chance(kernel: bytes, native: bytes, shadow: bytes) -> bytes:
    """Return the native bytes with the kernel's for words on which the two native runs disagree."""
    words = range(0, len(native), _WORD_BYTES)
    if native == shadow:
        return native
    return b"".join(
        (native if native[word : word + _WORD_BYTES] == shadow[word : word + _WORD_BYTES] else kernel)[
            word : word + _WORD_BYTES
        ]
        for word in words
    )


def native_cpus() -> int:
    """Return how many slots per-CPU maps need so that they look like this kernel's."""
    return num_possible_cpus()
