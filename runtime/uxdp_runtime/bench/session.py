"""Measure every variant of a program in turns: in the kernel, natively, and natively with something left out.

Timings of a machine that others use drift, so all variants are measured in many short rounds, one after the other,
pinned to one CPU; the result is each variant's median. A variant's figure is net: what the same loop takes without the
program is measured right before, in every round, and subtracted.
"""

import mmap
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from ..compile.compiler import ProgramSource, Target, Variant, compile_object
from ..compile.program import CompiledProgram
from ..errors import ParameterError
from ..map_file import load_text
from ..map_values import MapCodec
from ..stores import ControlLibrary, Stores
from .kernel_side import KernelSide
from .native_side import EXPORTED, NativeSide
from .workload import Workload

KERNEL: Final = "kernel"
NATIVE: Final = "native"
LIMIT: Final = "limit"
# Variants of native code by name.
ABLATIONS: Final = {
    "no inlining": Variant(EXPORTED, inlining=False),
    "no look-ahead": Variant(EXPORTED, lookahead=False),
}
_WARM_UP_FRAMES: Final = 20_000
_MIN_ROUNDS: Final = 7


@dataclass(frozen=True, slots=True)
class Figures:
    """What one variant took with one number of flows, in ns per frame; ``rounds`` are the single rounds' figures."""

    variant: str
    flows: int
    net_ns: float
    empty_ns: float
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: frames per round (at least; each flow comes at least once), rounds with few flows."""

    flows: tuple[int, ...]
    frames: int
    rounds: int


class Session:
    """A compiled program with its variants, ready to be measured; the kernel's maps are the verified object's."""

    def __init__(
        self,
        compiled: CompiledProgram,
        target: Target,
        control: ControlLibrary,
        workload: Workload,
        limit: bytes | None,
    ) -> None:
        """Compile the variants and fill all maps.

        :param limit: bitcode of the same source for this CPU (``limit.compile_source``), None to go without
        """
        self._program = compiled.verified.programs[compiled.source.entry]
        self._workload = workload
        self._cpu = max(os.sched_getaffinity(0))
        self._control = control
        self._helpers = compiled.helpers
        sources = {NATIVE: (compiled.source, Variant(EXPORTED))}
        sources |= {name: (compiled.source, variant) for name, variant in ABLATIONS.items()}
        if limit is not None:
            # The C is measured with what the bundle's constants say, so it takes no values from the kernel.
            source = replace(compiled.source, ir=limit, values={})
            sources[LIMIT] = (source, Variant(EXPORTED, from_c=True))
        self._sides = {name: self._side(source, variant, target) for name, (source, variant) in sources.items()}
        self._fill_maps(compiled)

    def close(self) -> None:
        """Give up what the variants opened."""
        for side in self._sides.values():
            side.close()

    @property
    def variants(self) -> tuple[str, ...]:
        """What is measured, in the order of the results."""
        return (KERNEL, *self._sides)

    def measure(self, plan: Plan, progress: Callable[[], None]) -> Iterator[Figures]:
        """Measure all variants for every number of flows; ``progress`` is called after each round of all variants.

        :raises ParameterError: kernel and native code do different things with these frames
        """
        for num_flows in plan.flows:
            with KernelSide(self._program, self._workload.frame, num_flows) as kernel, pinned_to(self._cpu):
                yield from self._measure(plan, kernel, num_flows, progress)

    def _measure(
        self, plan: Plan, kernel: KernelSide, num_flows: int, progress: Callable[[], None]
    ) -> Iterator[Figures]:
        heads: mmap.mmap = kernel.heads()
        next(iter(self._sides.values())).fill(heads, num_flows, self._workload.frame)
        sides: dict[str, KernelSide | NativeSide] = {KERNEL: kernel, **self._sides}
        frames = max(plan.frames, num_flows)
        for native in self._sides.values():
            native.use_heads(heads, num_flows)
        for side in sides.values():
            side.time(max(_WARM_UP_FRAMES, num_flows))
        self._check_verdicts(kernel)
        net: dict[str, list[float]] = {name: [] for name in sides}
        rounds = rounds_for(plan, num_flows)
        empty: dict[str, list[float]] = {name: [] for name in sides}
        order = list(sides.items())
        for _ in range(rounds):
            for name, side in order:
                floor = side.time_empty(frames)
                empty[name].append(floor)
                net[name].append(side.time(frames) - floor)
            order.append(order.pop(0))  # nobody always comes after the same one
            progress()
        for name in sides:
            yield Figures(
                name, num_flows, statistics.median(net[name]), statistics.median(empty[name]), tuple(net[name])
            )

    def _check_verdicts(self, kernel: KernelSide) -> None:
        """A time says nothing if the variants did different things; ``uxdp test`` compares more."""
        expected = kernel.verdict()
        for name, side in self._sides.items():
            side.verdicts()
            side.time(_WARM_UP_FRAMES)
            seen = side.verdicts()
            if max(seen, key=lambda verdict: seen[verdict]) != expected:
                raise ParameterError(
                    f"{name}: verdicts {seen}, but the kernel's is {expected}",
                    context="workload",
                    remedy="run uxdp test, which shows the first difference",
                )

    def _side(self, source: ProgramSource, variant: Variant, target: Target) -> NativeSide:
        native = compile_object(source, target, variant)
        stores = Stores(source.object, source.maps, source.num_cpus, self._control)
        stores.link_programs(source.object, source.programs)
        return NativeSide(native, stores, self._cpu, self._workload.frame, self._helpers)

    def _fill_maps(self, compiled: CompiledProgram) -> None:
        codecs = MapCodec.for_object(compiled.source.object)
        contents = load_text(self._workload.maps, codecs, cpus=compiled.source.num_cpus, source="workload")
        for name, items in contents.items():
            for key, value in items:
                compiled.verified.maps[name].update(key, value)
                for side in self._sides.values():
                    side.stores.update(name, key, value)


def rounds_for(plan: Plan, num_flows: int) -> int:
    """Return how many rounds there are with so many flows: where each takes longer, fewer."""
    return max(min(plan.rounds, _MIN_ROUNDS), plan.rounds * plan.frames // max(plan.frames, num_flows))


@contextmanager
def pinned_to(cpu: int) -> Iterator[None]:
    """Keep this thread on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
