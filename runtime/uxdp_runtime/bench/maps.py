"""What operations on maps cost, in the kernel and natively: ``uxdp bench --maps``.

Both sides run the same program of ours (native/bpf/bench_maps.bpf.c), with a map of the type and sizes that are
measured in the place of the one that it declares: the kernel's by BPF_PROG_TEST_RUN, the native one compiled from the
program's IR. Keys are drawn at random from those that the map was filled with; what drawing them costs is measured by a
program that does nothing else, and subtracted. CPU time counts. With several threads, each has a CPU of its own, all
work on the same map, and the figure is that of one.
"""

import os
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Self

from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import map_definitions

from ..bpf import syscall
from ..bpf.cpus import num_possible_cpus
from ..bpf.libbpf import LibbpfObject
from ..bpf.maps import Map
from ..bpf.own_programs import own_ir, own_program
from ..compile.compiler import ProgramSource, Target, Variant, compile_object
from ..errors import ParameterError
from ..native_module import FrameBatch, NativeModule
from ..stores import Stores, control_library

_PROGRAM: Final = "bench_maps"
_NOTHING: Final = "bench_nothing"
_OPERATIONS: Final = 64  # of one run; OPERATIONS in the program
_FRAME: Final = bytes(64)
_BATCH: Final = 64
_VALUE_BYTES: Final = 8
_GOLDEN: Final = 0x9E3779B97F4A7C15
_WORD: Final = (1 << 64) - 1
_MAX_KEY_BYTES: Final = 64
_MAX_FILL: Final = 1 << 24
_BPF_F_NO_PREALLOC: Final = 1
_LEAST_NS: Final = 0.1  # what can be told from nothing
_INDEX, _SPREAD, _PREFIX = range(3)


class Kind(NamedTuple):
    """A type of map: what is measured of it, which map of the program is replaced, what keys are like."""

    operations: tuple[str, ...]
    place: str
    keys: int


_TWO: Final = ("lookup", "update")
KINDS: Final[dict[str, Kind]] = {
    "array": Kind(_TWO, "table", _INDEX),
    "percpu_array": Kind(_TWO, "table", _INDEX),
    "hash": Kind(_TWO, "table", _SPREAD),
    "percpu_hash": Kind(_TWO, "table", _SPREAD),
    "lru_hash": Kind(_TWO, "table", _SPREAD),
    "lru_percpu_hash": Kind(_TWO, "table", _SPREAD),
    "lpm_trie": Kind(("lookup",), "table", _PREFIX),
    "array_of_maps": Kind(("nested",), "outer", _SPREAD),
    "hash_of_maps": Kind(("nested",), "outer", _SPREAD),
    "queue": Kind(("pushed",), "values", _SPREAD),
    "stack": Kind(("pushed",), "values", _SPREAD),
    "bloom_filter": Kind(("peeked",), "values", _SPREAD),
}
_KEY_BYTES: Final = {_INDEX: 4, _PREFIX: 8}
_OUTERS: Final = frozenset({"array_of_maps", "hash_of_maps"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: every combination. ``runs`` of 64 operations each are one round."""

    types: Sequence[str]
    key_sizes: Sequence[int]
    fills: Sequence[int]
    threads: Sequence[int]
    rounds: int
    runs: int


@dataclass(frozen=True, slots=True)
class Figure:
    """ns per operation on both sides, medians of the rounds."""

    type: str
    operation: str
    key_bytes: int
    fill: int
    threads: int
    kernel_ns: float
    native_ns: float

    @property
    def ratio(self) -> float:
        """How many times faster native code is."""
        return self.kernel_ns / self.native_ns

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"ratio": round(self.ratio, 3)}


def check(plan: Plan) -> None:
    """Refuse what cannot be measured.

    :raises ParameterError: it says what
    """
    for kind in plan.types:
        if kind not in KINDS:
            raise ParameterError(f"{kind!r}, expected some of {', '.join(KINDS)}", context="--types")
    for what, values, most in (
        ("--key-bytes", plan.key_sizes, _MAX_KEY_BYTES),
        ("--fill", plan.fills, _MAX_FILL),
        ("--threads", plan.threads, len(os.sched_getaffinity(0))),
    ):
        for value in values:
            if not 1 <= value <= most:
                raise ParameterError(f"{value}, expected 1..{most}", context=what)
    if any(size % 4 for size in plan.key_sizes):
        raise ParameterError("expected multiples of 4", context="--key-bytes")


def measure(plan: Plan, target: Target) -> Iterator[Figure]:
    """Yield the figures, as they are measured."""
    for name in plan.types:
        kind = KINDS[name]
        sizes = (_KEY_BYTES[kind.keys],) if kind.keys in _KEY_BYTES else plan.key_sizes
        for key_bytes in (0,) if kind.place == "values" else sizes:
            for fill in plan.fills:
                for operation in kind.operations:
                    bench = _Bench(name, operation, key_bytes, fill, target, max(plan.threads))
                    with bench:
                        for threads in plan.threads:
                            kernel, native = bench.measure(threads, plan.rounds, plan.runs)
                            yield Figure(name, operation, key_bytes, fill, threads, kernel, native)


class _Bench:
    """One map on both sides."""

    def __init__(self, kind: str, operation: str, key_bytes: int, fill: int, target: Target, threads: int) -> None:
        self._kind = kind
        self._operation = f"bench_{operation}"
        self._fill = fill
        self._threads = threads
        self._cpus = sorted(os.sched_getaffinity(0))
        self._resources = ExitStack()
        self._keys = KINDS[kind].keys
        self._key_bytes = key_bytes
        self._object = own_program(_PROGRAM)
        self._maps = self._definitions()
        self._kernel: dict[str, int] = {}
        with self._resources:
            self._load_kernel()
            self._workers = {
                name: [self._native(name, target, worker) for worker in range(threads)]
                for name in (self._operation, _NOTHING)
            }
            self._resources = self._resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._resources.close()

    def measure(self, threads: int, rounds: int, runs: int) -> tuple[float, float]:
        """Return ns per operation in the kernel and natively."""
        for run in (self._run_kernel, self._run_native):
            self._timed(threads, run, self._operation, runs)
        kernel: list[float] = []
        native: list[float] = []
        for _ in range(rounds):
            for run, found in ((self._run_kernel, kernel), (self._run_native, native)):
                cost, floor = (self._timed(threads, run, name, runs) for name in (self._operation, _NOTHING))
                found.append((cost - floor) / (runs * _OPERATIONS))
        return max(statistics.median(kernel), _LEAST_NS), max(statistics.median(native), _LEAST_NS)

    def _definitions(self) -> list[MapDefinition]:
        """Return the program's maps with the one that is measured in its place."""
        inner = "hash" if self._kind in _OUTERS else self._kind
        flags = _BPF_F_NO_PREALLOC if self._kind == "lpm_trie" else 0
        found: list[MapDefinition] = []
        for item in map_definitions(BpfObject(self._object)):
            if item.name == "table" and KINDS[self._kind].place != "values":
                item = replace(
                    item, type=inner, key_size=self._key_bytes, max_entries=self._fill, flags=flags, inner=None
                )
            elif item.name == "outer":
                table = next(one for one in found if one.name == "table")
                kind = self._kind if self._kind in _OUTERS else item.type
                item = replace(item, type=kind, inner=replace(table, name=""))
            elif item.name == "values" and KINDS[self._kind].place == "values":
                item = replace(item, type=self._kind, max_entries=self._fill)
            if not item.name.startswith("."):
                found.append(item)
        return found

    def _elements(self) -> Iterable[tuple[bytes, bytes]]:
        value = struct.pack("=Q", 3)
        if KINDS[self._kind].place == "values":
            filled = range(self._fill if self._kind == "bloom_filter" else self._fill // 2)
            return ((b"", struct.pack("=Q", number * _GOLDEN & _WORD)) for number in filled)
        return ((self._key(number), value) for number in range(self._fill))

    def _key(self, number: int) -> bytes:
        """As next_key() in the program."""
        if self._keys == _INDEX:
            return struct.pack("=I", number)
        if self._keys == _PREFIX:
            length = 32 - number % 9
            return struct.pack("=II", length, number * 0x9E3779B1 & 0xFFFF_FFFF)
        rest = b"".join(struct.pack("=Q", index * _GOLDEN & _WORD) for index in range(1, 8))
        return (struct.pack("=Q", number * _GOLDEN & _WORD) + rest)[: self._key_bytes]

    def _load_kernel(self) -> None:
        loaded = LibbpfObject(self._object, "bench")
        self._resources.callback(loaded.close)
        wanted = {self._operation, _NOTHING}
        for program in loaded.programs:
            program.set_autoload(program.name in wanted)
        made: dict[str, Map] = {}
        for item in self._maps:
            made[item.name] = self._resources.enter_context(
                Map.create(
                    *(item.type,),
                    key_size=item.key_size,
                    value_size=item.value_size,
                    max_entries=item.max_entries,
                    flags=item.flags,
                    inner_fd=made["table"].fd if item.inner is not None else 0,
                )
            )
        for table in loaded.maps:
            if table.name in made:
                table.reuse_fd(made[table.name].fd)
            elif table.section == ".rodata":
                for name, number in (("fill", self._fill), ("keys", self._keys)):
                    table.write_initial(self._constant(name), struct.pack("=I", number))
        loaded.load()
        self._kernel = {program.name: program.fd for program in loaded.programs if program.name in wanted}
        target = made["values" if KINDS[self._kind].place == "values" else "table"]
        slots = target.num_slots
        if target.type in ("queue", "stack", "bloom_filter"):
            for key, value in self._elements():
                target.update(key, value)
        else:
            target.update_many((key, value * slots) for key, value in self._elements())
        if self._kind in _OUTERS:
            made["outer"].update(bytes(4), struct.pack("=i", made["table"].fd))

    def _constant(self, name: str) -> int:
        parsed = BpfObject(self._object)
        return next(symbol.value for symbol in parsed.symbols if symbol.name == name)

    def _native(self, name: str, target: Target, worker: int) -> tuple[NativeModule, FrameBatch]:
        if worker == 0 and name == self._operation:
            self._stores = Stores(self._object, self._maps, num_possible_cpus(), control_library())
            place = "values" if KINDS[self._kind].place == "values" else "table"
            store = self._stores[place]
            slots = store.cpus if store.value_bytes != store.definition.value_size else 1
            for key, value in self._elements():
                store.update(key, value * slots)
            if self._kind in _OUTERS:
                self._stores["outer"].update(bytes(4), struct.pack("=I", 1))
        if worker == 0:
            source = ProgramSource(
                ir=own_ir(_PROGRAM),
                object=self._object,
                entry=name,
                programs=(name,),
                maps=tuple(self._maps),
                num_cpus=num_possible_cpus(),
                values={},
                constants={"fill": struct.pack("=I", self._fill), "keys": struct.pack("=I", self._keys)},
            )
            self._code = compile_object(source, target, Variant(lookahead=False)).data
        batch = FrameBatch(_BATCH)
        for index in range(_BATCH):
            batch.put(index, _FRAME)
        return NativeModule(self._code, self._stores, worker, seed=worker + 1), batch

    def _run_kernel(self, _thread: int, name: str, runs: int) -> None:
        syscall.run_program(self._kernel[name], _FRAME, repeat=runs)

    def _run_native(self, thread: int, name: str, runs: int) -> None:
        module, batch = self._workers[name][thread]
        for _ in range(runs // _BATCH):
            module.run(batch, _BATCH)

    def _timed(self, threads: int, run: Callable[[int, str, int], None], name: str, runs: int) -> float:
        """Return the CPU time of one thread, in ns, when all of them do the same at once."""
        times = [0] * threads
        barrier = threading.Barrier(threads)

        def work(thread: int) -> None:
            os.sched_setaffinity(0, {self._cpus[thread]})
            barrier.wait()
            start = time.thread_time_ns()
            run(thread, name, runs)
            times[thread] = time.thread_time_ns() - start

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return statistics.mean(times)
