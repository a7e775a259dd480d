"""Run the same frames in the kernel and natively, with state carried along, and find the first difference.

The kernel's BPF_PROG_TEST_RUN is the specification. Both sides begin with the same maps; for every frame the verdict,
the bytes, the metadata, a redirect's target and the records in ring buffers must be equal, and in the end the maps. The
kernel runs on one CPU, whose number the native worker takes, so per-CPU maps are comparable slot by slot.

Frames come to the native code in bursts when it is in service, and what looks ahead in a burst must change nothing. So
it runs twice: frame by frame, which tells where a difference begins, and once more in bursts.

A redirect's target comes from a second copy of the program in the kernel (see redirects). Where that cannot tell, the
target is not compared; ``targets_not_compared`` says how often and why.

Time and random numbers differ between two runs in the kernel, too. So there is a third native run (the shadow) with
another clock and other random numbers; see outcomes. A frame on which it disagrees with the first is left out, and
counted in ``left_out``. The order of a hash map's elements means nothing; they are compared as sets.
"""

import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from typing import Final, NamedTuple, Self

from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import BPF_F_WRONLY

from .bpf.cpus import num_possible_cpus
from .bpf.inner_maps import split_inner_name
from .compile.program import CompiledProgram
from .frames.generate import Frame
from .kernel_side import KernelSide
from .native_side import NativeSide
from .outcomes import (
    GARBAGE,
    SHADOW_GARBAGE,
    MapDifference,
    Outcome,
    core,
    difference,
    joined,
    map_difference,
    same_records,
)
from .steps import MapChange
from .store import SEQUENCES
from .stores import ControlLibrary, Store, Stores

_WRITE_ONLY: Final = "nobody but programs may read it"
_REFERENCES: Final = ("prog_array", "devmap", "devmap_hash", "cpumap", "xskmap", "array_of_maps", "hash_of_maps")
_CONSTANT, _READ, _RECORDS = (
    "programs cannot change it",
    "programs only read it",
    "its records are compared, with the frames",
)
# Why the maps of some types are not compared in the end.
_NOT_COMPARED: Final = {
    **dict.fromkeys(_REFERENCES, _CONSTANT),
    "user_ringbuf": _READ,
    **dict.fromkeys(("ringbuf", "perf_event_array"), _RECORDS),
    "bloom_filter": "nobody can list what is in it",
}
TIMERS_GO_ON: Final = "timers start themselves again and again"
SEEN_OTHERWISE: Final = frozenset({_CONSTANT, _READ, _RECORDS})  # nothing of these maps stays unseen
# The shadow's clock: every byte differs from those of a real time in ns since boot, now and for the next centuries.
_SHADOW_CLOCK_NS: Final = 0x7A7B_7C7D_7E7F_7071
_SHADOW_SEED: Final = 2
# Their elements come in the same order on both sides.
_ARRAYS: Final = frozenset({"array", "percpu_array"})
_PIECE: Final = 4096
_PER_CPU: Final = frozenset({"percpu_array", "percpu_hash", "lru_percpu_hash"})
_PER_CPU_ALIGNMENT: Final = 8
# Timers that are due within this time are waited for; what others will do cannot be compared.
_TIMER_NS: Final = 300_000_000
# As uxdp_run looks ahead (UXDP_GROUP, native/run.c).
BURST_FRAMES: Final = 32


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """The first frame on which kernel and native code differ, and in what: verdict, bytes, metadata, redirect target or
    ring-buffer records.

    ``in_bursts``: natively it was run in a burst, and alone there is no difference; the records are then those of the
    whole burst that ends with the frame.
    """

    number: int
    frame: Frame
    kernel: Outcome
    native: Outcome
    what: str
    in_bursts: bool = False


@dataclass(frozen=True, slots=True)
class ChangeDifference:
    """A control plane's change of a map that kernel and native code answer differently: errno values, 0 for success."""

    change: MapChange
    kernel: int
    native: int


@dataclass(frozen=True, slots=True)
class MapsCompared:
    """How many maps were compared in the end, sections of global data too, and the names of others, by the reason."""

    number: int = 0
    apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Differential:
    """A verified program and its native code, side by side. Use it as a context manager.

    ``left_out`` counts frames that depend on time or chance, ``targets_not_compared`` redirected frames by the reason;
    ``maps`` says which maps were compared in the end.
    """

    def __init__(self, compiled: CompiledProgram, control: ControlLibrary) -> None:
        """Load the native code, with stores like the kernel's maps.

        :raises UnsupportedFeatureError: the kernel does not run the program in a test
        """
        source = compiled.source
        self._kernel = KernelSide(compiled.verified, source.entry, source.maps)
        self._cpu = self._kernel.cpu
        self._native = NativeSide(compiled, control, self._cpu, garbage=GARBAGE)
        self._burst = NativeSide(compiled, control, self._cpu, garbage=GARBAGE, burst_frames=BURST_FRAMES)
        self._shadow = NativeSide(
            compiled, control, self._cpu, seed=_SHADOW_SEED, now_ns=_SHADOW_CLOCK_NS, garbage=SHADOW_GARBAGE
        )
        self._sides = (self._native, self._burst, self._shadow)
        self._waiting: list[_Waiting] = []
        self.left_out = 0
        self.maps = MapsCompared()

    @property
    def stores(self) -> Stores:
        """The native side's maps."""
        return self._native.stores

    @property
    def targets_not_compared(self) -> Counter[str]:
        """How many redirected frames were not compared in where they go, by the reason."""
        return self._kernel.targets_not_compared

    def __enter__(self) -> Self:
        self._kernel.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        for side in self._sides:
            side.close()
        self._kernel.__exit__(*exception)

    def fill(self, contents: Mapping[str, Iterable[tuple[bytes, bytes]]]) -> None:
        """Give both sides the same elements: map name -> (key, value) pairs as bpf(2) takes them.

        Devices that a devmap names need not exist here if the program's redirects can be compared.
        """
        for name, items in contents.items():
            elements = tuple(items)
            self._kernel.fill(name, elements)
            for key, value in elements:
                for side in self._sides:
                    side.stores.update(name, key, value)

    def link(self, name: str, programs: Mapping[int, str]) -> None:
        """Put programs of the object into a prog_array on all sides, by index."""
        for index, program in programs.items():
            key = struct.pack("=I", index)
            for side in (self._kernel, *self._sides):
                side.link(name, key, program)

    def change(self, change: MapChange) -> ChangeDifference | None:
        """Change a map on all sides, as a control plane does; return the difference if they answer differently.

        What waits for its burst has to be run before: call it between calls of ``run``.
        """
        kernel = self._kernel.change(change)
        results = [side.change(change) for side in self._sides]
        wrong = next((result for result in results if result != kernel), None)
        return None if wrong is None else ChangeDifference(change, kernel, wrong)

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Outcome, FrameDifference | None]]:
        """Run frame by frame on both sides; yield what the kernel made of each, and the difference if there is one.

        A difference in a burst comes with the burst's last frame.
        """
        numbered = enumerate(frames)
        item = next(numbered, None)
        while item is not None:
            number, frame = item
            kernel = self._kernel.run(frame)
            native, shadow = (self._alone(side, frame) for side in (self._native, self._shadow))
            by_chance = core(native) != core(shadow)
            self.left_out += by_chance
            what = "" if by_chance else difference(kernel, native, native, shadow)
            found = FrameDifference(number, frame, kernel, native, what) if what else None
            self._waiting.append(_Waiting(number, frame, kernel, native, shadow, by_chance))
            item = next(numbered, None)
            full = list(self._kernel.full_rings())
            if item is None or full or len(self._waiting) == BURST_FRAMES:
                in_burst = self._run_burst()
                found = found or in_burst
            yield frame, kernel, found
            # At once on all sides.
            for ring in full:
                for side in (self._kernel, *self._sides):
                    side.empty_ring(ring)

    def map_differences(self) -> Iterator[MapDifference]:
        """Yield the elements that differ now, map by map; those that differ only in bursts if there are no others."""
        definitions = [store.definition for store in self.stores]
        if not self._settle_timers():
            names = (*(definition.name for definition in definitions), *self.stores.sections)
            self.maps = MapsCompared(apart={TIMERS_GO_ON: names})
            return
        apart: dict[str, tuple[str, ...]] = {}
        for definition in definitions:
            if reason := _why_not_compared(definition):
                apart[reason] = (*apart.get(reason, ()), definition.name)
        number = len(definitions) + len(self.stores.sections) - sum(map(len, apart.values()))
        self.maps = MapsCompared(number, apart)
        found = False
        for item in self._map_differences(self._native.stores):
            found = True
            yield item
        if not found:
            for item in self._map_differences(self._burst.stores):
                yield replace(item, in_bursts=True)

    def _settle_timers(self) -> bool:
        """Wait for the timers that are due soon, on all sides; return whether they come to rest."""
        if not self._native.has_timers:
            return True
        begun = time.monotonic_ns()
        rested = [side.settle_timers(_TIMER_NS) for side in self._sides]
        # The kernel's are called when they are due; there is no telling from outside.
        time.sleep(max(_TIMER_NS - (time.monotonic_ns() - begun), _TIMER_NS // 10) / 1e9)
        return all(rested)

    def _map_differences(self, stores: Stores) -> Iterator[MapDifference]:
        for store in (*stores, *stores.made()):
            definition = store.definition
            if _why_not_compared(definition):
                continue
            alone = self.stores[definition.name]
            is_made = split_inner_name(definition.name) is not None
            if store is not alone and not is_made and definition.type in _ARRAYS and store.has_memory_of(alone):
                continue  # which was compared already
            if definition.type in SEQUENCES:
                yield from self._sequence_differences(store)
                continue
            pair = [side.stores[definition.name] for side in (self._native, self._shadow)]
            for kernel, tested in self._elements(store):
                for key in sorted(kernel.keys() | tested.keys()):
                    if kernel.get(key) != tested.get(key):
                        values = (kernel.get(key), tested.get(key), *(side.lookup(key) for side in pair))
                        yield from map_difference(definition.name, key, *(_unfilled(definition, one) for one in values))
        for name in stores.sections:
            data = (bytes(side.section(name)) for side in (stores, self._native.stores, self._shadow.stores))
            yield from map_difference(name, bytes(4), self._kernel.section(name), *data)

    def _sequence_differences(self, store: Store) -> Iterator[MapDifference]:
        """Yield the values of a queue or stack that differ; their places stand for keys."""
        name = store.definition.name
        others = ([value for _key, value in side[name].items()] for side in (self._native.stores, self._shadow.stores))
        sides = (self._kernel.values(name), [value for _key, value in store.items()], *others)
        for place, values in enumerate(zip_longest(*sides)):
            yield from map_difference(name, struct.pack("=I", place), *values)

    def _elements(self, store: Store) -> Iterator[tuple[dict[bytes, bytes], dict[bytes, bytes]]]:
        """Yield the elements of a map on both sides, without pieces of an array that are equal."""
        kernel, native = self._kernel.items(store.definition.name), store.items()
        if store.definition.type not in _ARRAYS:
            yield dict(kernel), dict(native)
            return
        while True:
            here, there = (list(islice(items, _PIECE)) for items in (kernel, native))
            if here != there:
                yield dict(here), dict(there)
            if not here and not there:
                return

    @staticmethod
    def _alone(side: NativeSide, frame: Frame) -> Outcome:
        (outcome,) = side.run((frame,))
        return replace(outcome, records=side.read_records())

    def _run_burst(self) -> FrameDifference | None:
        """Run the frames that wait as a burst, and return the first difference."""
        waiting, self._waiting = self._waiting, []
        outcomes = self._burst.run([one.frame for one in waiting])
        records = self._burst.read_records()
        for one, outcome in zip(waiting, outcomes, strict=True):
            kernel, native, shadow = (replace(side, records=()) for side in (one.kernel, one.native, one.shadow))
            what = "" if one.by_chance else difference(kernel, outcome, native, shadow)
            if what:
                return FrameDifference(one.number, one.frame, kernel, outcome, what, in_bursts=True)
        if any(one.by_chance for one in waiting):
            return None
        sides = zip(*((one.kernel, one.native, one.shadow) for one in waiting), strict=True)
        expected, *pair = (joined([outcome.records for outcome in side]) for side in sides)
        if all(map(same_records, expected, records, *pair)):
            return None
        last = waiting[-1]
        kernel, outcome = replace(last.kernel, records=expected), replace(outcomes[-1], records=records)
        return FrameDifference(last.number, last.frame, kernel, outcome, "ring-buffer records", in_bursts=True)


def _why_not_compared(definition: MapDefinition) -> str:
    """Return why a map's elements are not compared in the end; empty: they are."""
    return _WRITE_ONLY if definition.flags & BPF_F_WRONLY else _NOT_COMPARED.get(definition.type, "")


def _unfilled(definition: MapDefinition, value: bytes | None) -> bytes | None:
    """Return a value with zeros where per-CPU values are filled up to 8 bytes.

    There elements have what a control plane, or an element before in the same place, has left; programs see none of it.
    Source: kernel/bpf/hashtab.c, pcpu_init_value
    """
    size = definition.value_size
    if value is None or definition.type not in _PER_CPU or size % _PER_CPU_ALIGNMENT == 0:
        return value
    filled = size + -size % _PER_CPU_ALIGNMENT
    parts = (value[start : start + size] for start in range(0, len(value), filled))
    return b"".join(part + bytes(filled - size) for part in parts)


class _Waiting(NamedTuple):
    """A frame that waits for its burst, and what it has to be compared with."""

    number: int
    frame: Frame
    kernel: Outcome
    native: Outcome
    shadow: Outcome
    by_chance: bool


def native_cpus() -> int:
    """Return how many slots per-CPU maps need so that they look like this kernel's."""
    return num_possible_cpus()
