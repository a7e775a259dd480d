"""Run the same frames in the kernel and natively, with state carried along, and find the first difference.

The kernel's BPF_PROG_TEST_RUN is the specification. Both sides begin with the same maps; for every frame the verdict,
the bytes and the metadata must be equal, and in the end the maps. The kernel runs on one CPU, whose number the native
worker takes, so per-CPU maps are comparable slot by slot.

Time and random numbers differ between two runs in the kernel, too. So the native code runs twice, the second time (the
shadow) with another clock and other random numbers: 8-byte words of map values on which the two native runs disagree
depend on time or chance and are left out of the comparison, and so is a frame on which they disagree. The order of a
hash map's elements means nothing; they are compared as sets.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from .bpf.cpus import num_possible_cpus
from .bpf.maps import Map
from .bpf.test_run import TestRunner
from .compile.program import CompiledProgram
from .frames.generate import Frame
from .native_module import FrameBatch, NativeModule
from .stores import ControlLibrary, Stores

# Maps whose elements programs cannot write and that the comparison therefore leaves out.
_REFERENCES: Final = frozenset(
    {"prog_array", "devmap", "devmap_hash", "cpumap", "xskmap", "array_of_maps", "hash_of_maps"}
)
# The shadow's clock: every byte differs from those of a real time in ns since boot, now and for the next centuries.
_SHADOW_CLOCK_NS: Final = 0x7A7B_7C7D_7E7F_7071
_SHADOW_SEED: Final = 2
_WORD_BYTES: Final = 8
_STREAMS: Final = frozenset({"ringbuf", "perf_event_array"})
VERDICTS: Final = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")


def verdict_name(verdict: int) -> str:
    """Return a verdict's name, or its number if it is none of enum xdp_action."""
    return VERDICTS[verdict] if 0 <= verdict < len(VERDICTS) else str(verdict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a frame."""

    verdict: int
    data: bytes
    metadata: bytes


@dataclass(frozen=True, slots=True)
class FrameDifference:
    """The first frame on which kernel and native code differ."""

    number: int
    frame: Frame
    kernel: Outcome
    native: Outcome

    @property
    def what(self) -> str:
        """Say in one word what differs first."""
        if self.kernel.verdict != self.native.verdict:
            return "verdict"
        return "bytes" if self.kernel.data != self.native.data else "metadata"


@dataclass(frozen=True, slots=True)
class MapDifference:
    """An element that kernel and native map do not agree on; None: it is not there."""

    map: str
    key: bytes
    kernel: bytes | None
    native: bytes | None


class Differential:
    """A verified program and its native code, side by side. Use it as a context manager."""

    def __init__(self, compiled: CompiledProgram, control: ControlLibrary) -> None:
        """Load the native code, with stores like the kernel's maps."""
        self._verified = compiled.verified
        self._runner = TestRunner(compiled.verified.programs[compiled.source.entry].fd)
        self._cpus = os.sched_getaffinity(0)
        self._cpu = min(self._cpus)
        source = compiled.source
        self.stores = Stores(source.object, source.maps, source.num_cpus, control)
        self._module = NativeModule(compiled.native.data, self.stores, self._cpu)
        self._shadow_stores = Stores(source.object, source.maps, source.num_cpus, control)
        self._shadow = NativeModule(
            compiled.native.data, self._shadow_stores, self._cpu, seed=_SHADOW_SEED, now_ns=_SHADOW_CLOCK_NS
        )
        for stores in (self.stores, self._shadow_stores):
            stores.link_programs(source.object, source.programs)
        self._batch = FrameBatch(1)

    def __enter__(self) -> Self:
        # The kernel runs the program where this thread is: per-CPU slots must not wander.
        os.sched_setaffinity(0, {self._cpu})
        return self

    def __exit__(self, *_exception: object) -> None:
        os.sched_setaffinity(0, self._cpus)

    def fill(self, contents: Mapping[str, Iterable[tuple[bytes, bytes]]]) -> None:
        """Give both sides the same elements: map name -> (key, value) pairs as bpf(2) takes them."""
        for name, items in contents.items():
            for key, value in items:
                self._verified.maps[name].update(key, value)
                self.stores[name].update(key, value)
                self._shadow_stores[name].update(key, value)

    def run(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Outcome, FrameDifference | None]]:
        """Run frame by frame on both sides; yield what the kernel made of each, and the difference if there is one."""
        for number, frame in enumerate(frames):
            kernel = self._in_kernel(frame)
            native = self._natively(self._module, frame)
            chance = native != self._natively(self._shadow, frame)
            difference = FrameDifference(number, frame, kernel, native) if kernel != native and not chance else None
            yield frame, kernel, difference

    def map_differences(self) -> Iterator[MapDifference]:
        """Yield the elements that differ now, map by map."""
        for store in self.stores:
            definition = store.definition
            if definition.type in _REFERENCES or definition.type in _STREAMS:
                continue
            kernel = dict(self._kernel_items(self._verified.maps[definition.name]))
            native = dict(store.items())
            shadow = self._shadow_stores[definition.name]
            for key in sorted(kernel.keys() | native.keys()):
                if kernel.get(key) != native.get(key) and not _by_chance(
                    kernel.get(key), native.get(key), shadow.lookup(key)
                ):
                    yield MapDifference(definition.name, key, kernel.get(key), native.get(key))
        for name in self.stores.sections:
            kernel_data = self._verified.maps[name].lookup(bytes(4))
            native_data = bytes(self.stores.section(name))
            if not _by_chance(kernel_data, native_data, bytes(self._shadow_stores.section(name))):
                yield MapDifference(name, bytes(4), kernel_data, native_data)

    @staticmethod
    def _kernel_items(item: Map) -> Iterator[tuple[bytes, bytes]]:
        return item.items()

    def _in_kernel(self, frame: Frame) -> Outcome:
        result = self._runner.run(frame.data, metadata=frame.metadata)
        return Outcome(result.verdict, result.frame, result.metadata)

    def _natively(self, module: NativeModule, frame: Frame) -> Outcome:
        self._batch.put(
            0, frame.data, metadata=frame.metadata, ifindex=frame.ingress_ifindex, queue=frame.rx_queue_index
        )
        module.run(self._batch, 1)
        result = self._batch.result(0)
        return Outcome(result.verdict, result.data, result.metadata)


def _by_chance(kernel: bytes | None, native: bytes | None, shadow: bytes | None) -> bool:
    """Whether kernel and native value differ only in words on which the two native runs disagree as well.

    An element that only one of the two native runs has is there by chance itself.
    """
    if native is None or shadow is None or kernel is None:
        return (native is None) != (shadow is None)
    return all(
        kernel[word : word + _WORD_BYTES] == native[word : word + _WORD_BYTES]
        or native[word : word + _WORD_BYTES] != shadow[word : word + _WORD_BYTES]
        for word in range(0, len(native), _WORD_BYTES)
    )


def native_cpus() -> int:
    """Return how many slots per-CPU maps need so that they look like this kernel's."""
    return num_possible_cpus()
