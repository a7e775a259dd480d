"""Build a source, run frames through it in the kernel and natively, and expect that nothing differs."""

import itertools
import time
from collections import Counter
from pathlib import Path

from tests.bound_bundles import bound_image
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import CompiledProgram, compile_program
from uxdp_runtime.differential import TIMERS_GO_ON, Differential, native_cpus
from uxdp_runtime.frames.constants import constants_of, keys_of
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.map_file import read_map_file
from uxdp_runtime.outcomes import verdict_name
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import VerifiedObject, verify

_STARVED = "starved"
_ATTEMPTS = 3
# In which the kernel gives back what earlier programs had: after a grace period of RCU, and by a worker.
_RECOVERY_SECONDS = 1.0


def assert_agreement(
    source: Path,
    target: Target,
    control: ControlLibrary,
    cache: Path,
    *,
    frames: int,
    seed: int,
    settings: tuple[str, ...] = (),
    clang_args: tuple[str, ...] = (),
) -> Counter[str]:
    """Run every program of a source on generated frames on both sides; return the kernel's verdicts by name."""
    image = build(BuildRequest(sources=(source.name,), cwd=source.parent, clang_args=clang_args)).bundle
    verdicts: Counter[str] = Counter()
    with bound_image(image, path=source.name) as bound:
        for fact in bound.facts.programs:
            if {"devmap", "cpumap"} & set(fact.flags):
                continue  # the kernel runs them in no test
            for attempt in range(_ATTEMPTS):
                with verify(bound) as verified:
                    compiled = compile_program(
                        verified, fact.name, target, num_cpus=native_cpus(), cache_directory=cache
                    )
                    try:
                        verdicts += assert_agreement_of(compiled, control, frames=frames, seed=seed, settings=settings)
                        break
                    except AssertionError:
                        if attempt == _ATTEMPTS - 1 or not _starved(verified):
                            raise
                time.sleep(_RECOVERY_SECONDS)
    return verdicts


def _starved(verified: VerifiedObject) -> bool:
    """Whether the kernel had no memory at hand for what the program wanted, by the case's own map of that name."""
    return _STARVED in verified.maps and any(verified.maps[_STARVED].lookup(bytes(4)))


def assert_agreement_of(
    compiled: CompiledProgram, control: ControlLibrary, *, frames: int, seed: int, settings: tuple[str, ...] = ()
) -> Counter[str]:
    """Run a compiled program on generated frames on both sides; return the kernel's verdicts by name."""
    obj = bytes(compiled.verified.bound.authentic.bundle.object)
    contents = read_map_file(obj, None, settings)
    keys = keys_of(compiled.verified.bound.facts.maps, contents)
    verdicts: Counter[str] = Counter()
    name = compiled.source.entry
    with Differential(compiled, control) as sides:
        sides.fill(contents)
        for _frame, outcome, difference in sides.run(generate(frames, seed, {*constants_of(obj), *keys})):
            assert difference is None, f"{name}: {difference}"
            verdicts[verdict_name(outcome.verdict)] += 1
        differences = list(itertools.islice(sides.map_differences(), 3))
        assert differences == [], f"{name}: {differences}"
        assert TIMERS_GO_ON not in sides.maps.apart
    return verdicts
