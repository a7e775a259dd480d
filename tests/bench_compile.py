"""How long it takes from a verified object to native code that can run: compiled, cached, or from the bundle.

    python -m tests.bench_compile [--runs N] [--json FILE]

Everything is measured inside of one process, from ``VerifiedObject`` to a loaded ``NativeModule`` with its stores; the
child process that LLVM runs in is counted, the start of this interpreter is not. The three ways alternate, so that
whatever else the machine does meets all of them. Besides the examples there is a generated program of 5,000
instructions. The exit status is 1 if load_balancer or that one exceeds a limit.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench_packaging import isolate
from tests.large_program import large_program
from uxdp_bundle.authentication import authenticate
from uxdp_bundle.binding import BoundBundle, bind
from uxdp_bundle.container import Bundle, bundle_from_bytes
from uxdp_bundle.keys import development_key
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.signature import sign_bundle
from uxdp_bundle.trust import TrustStore
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.ahead import compile_ahead
from uxdp_runtime.compile.program import CompiledProgram, Origin, compile_program, program_source
from uxdp_runtime.compile.targets import named_target
from uxdp_runtime.differential import native_cpus
from uxdp_runtime.native_module import NativeModule
from uxdp_runtime.stores import ControlLibrary, Stores, control_library
from uxdp_runtime.verify import VerifiedObject, verify

EXAMPLES = Path(__file__).parents[1] / "examples"
GENERATED = "generated"
GENERATED_INSTRUCTIONS = 5000
LIMITS_S = {
    "load_balancer": {"cold": 0.6, "cache": 0.03, "aot": 0.03},
    GENERATED: {"cold": 3.0, "cache": 0.05, "aot": 0.05},
}
ORIGINS = {"cold": Origin.LLVM, "cache": Origin.CACHE, "aot": Origin.AHEAD}


def main() -> int:
    """Measure, print, and say whether the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="of each way and example (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uxdp-bench-") as folder:
        figures = measure(Path(folder), arguments.runs)
    print(
        f"{'ms, medians of ' + str(arguments.runs):<20} {'cold':>8} {'(CPU)':>8} {'cache':>8} {'AOT':>8} {'bind':>8}"
        f" {'bytes':>8} {'instr.':>8}"
    )
    for name, figure in figures["examples"].items():
        times = (figure[key] * 1e3 for key in ("cold_s", "cold_cpu_s", "cache_s", "aot_s", "bind_s"))
        counts = f" {figure['bytes']:8} {figure['instructions']:8}"
        print(f"{name:<20} " + " ".join(f"{value:8.1f}" for value in times) + counts)
    for name, limits in LIMITS_S.items():
        print(f"limits, {name}: " + ", ".join(f"{way} {limit * 1e3:.0f} ms" for way, limit in limits.items()))
    print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figures["kept"].values()) else 1


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Compile and load every example in three ways; return the figures."""
    isolate(folder)
    control = control_library()
    examples = {}
    for source in sorted(EXAMPLES.glob("*/*.c")):
        plain = build(BuildRequest(sources=(source.name,), cwd=source.parent)).bundle
        examples[source.stem] = _example(plain, control, folder / "cache", runs)
    (folder / f"{GENERATED}.c").write_text(large_program(GENERATED_INSTRUCTIONS))
    plain = build(BuildRequest(sources=(f"{GENERATED}.c",), cwd=folder)).bundle
    examples[GENERATED] = _example(plain, control, folder / "cache", runs)
    return {
        "runs": runs,
        "examples": examples,
        "kept": {
            f"{name}, {way}": examples[name][f"{way}_s"] <= limit
            for name, limits in LIMITS_S.items()
            for way, limit in limits.items()
        },
    }


def _example(plain: bytes, control: ControlLibrary, cache: Path, runs: int) -> dict[str, Any]:
    key, _created = development_key(create=True)
    with bundle_from_bytes(plain) as bundle:
        unsigned = sign_bundle(bundle, key)
        bound = _bound(bundle, insecure=True)
        name = bound.facts.programs[0].name
        source = program_source(bound, name, num_cpus=0, values=None, constants={})
        code = compile_ahead(source, named_target("native"))
        with bundle_from_bytes(bundle.with_members([code.content()])) as more:
            ahead = sign_bundle(more, key)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ORIGINS}
    binding: list[float] = []
    with (
        bundle_from_bytes(unsigned) as one,
        bundle_from_bytes(ahead) as other,
        verify(_bound(one)) as verified,
        verify(_bound(other)) as with_code,
    ):
        ways: dict[str, tuple[VerifiedObject, Path | None]] = {
            "cold": (verified, None),
            "cache": (verified, cache),
            "aot": (with_code, None),
        }
        compile_program(verified, name, None, num_cpus=native_cpus(), cache_directory=cache)
        for _ in range(runs):
            start = time.perf_counter()
            _bound(one)
            binding.append(time.perf_counter() - start)
            for way, (obj, directory) in ways.items():
                times[way].append(_timed(lambda: _loaded(obj, name, control, directory), ORIGINS[way]))  # noqa: B023
    return {
        **{f"{way}_s": round(statistics.median(elapsed for elapsed, _cpu in times[way]), 5) for way in times},
        "cold_cpu_s": round(statistics.median(cpu for _elapsed, cpu in times["cold"]), 5),
        "bind_s": round(statistics.median(binding), 5),
        "bytes": len(code.data),
        "instructions": bound.facts.programs[0].instructions,
    }


def _bound(bundle: Bundle, *, insecure: bool = False) -> BoundBundle:
    used = RollbackState.load()
    return bind(authenticate(bundle, TrustStore.load(), now=datetime.now(UTC), rollback=used, allow_unsigned=insecure))


def _loaded(
    verified: VerifiedObject, name: str, control: ControlLibrary, directory: Path | None
) -> tuple[CompiledProgram, NativeModule]:
    """Do what is measured."""
    compiled = compile_program(verified, name, None, num_cpus=native_cpus(), cache_directory=directory)
    stores = Stores(compiled.source.object, compiled.source.maps, compiled.source.num_cpus, control)
    stores.link_programs(compiled.source.object, compiled.source.programs)
    return compiled, NativeModule(compiled.native.data, stores, 0)


def _timed(load: Callable[[], tuple[CompiledProgram, NativeModule]], origin: Origin) -> tuple[float, float]:
    """Run once; return elapsed and CPU seconds, the latter with the child's."""
    before, start = _cpu_seconds(), time.perf_counter()
    compiled, _module = load()
    elapsed, after = time.perf_counter() - start, _cpu_seconds()
    if compiled.origin is not origin:
        raise SystemExit(f"expected code from {origin.value}, but it is from {compiled.origin.value}")
    return elapsed, after - before


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    sys.exit(main())
