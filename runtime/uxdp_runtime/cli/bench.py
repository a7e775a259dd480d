"""``uxdp bench``: what a frame costs in the kernel, natively, and with something left out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from uxdp_bundle.errors import UxdpError

from ..errors import ParameterError
from . import output
from .pipeline import bound_bundle

_MAX_FLOWS = 1 << 24
_MAP_ROUNDS = 11
_MAP_RUNS = 2048  # of 64 operations


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME", required=False)
@click.option("--program", metavar="NAME", help="Program to measure.  [default: the bundle's first]")
@click.option("--workload", type=click.Path(path_type=Path), help="JSON file: the frame and the maps' content.")
@click.option("--flows", default="1,10000,1000000", show_default=True, help="Numbers of distinct flows.")
@click.option("--frames", default=50_000, show_default=True, help="Frames per round, at least one of each flow.")
@click.option("--rounds", default=61, show_default=True, help="Rounds, fewer with many flows; medians count.")
@click.option("--limit", type=click.Path(path_type=Path), help="The C source, to compare with clang -O3 of it.")
@click.option("--clang", default="", metavar="COMMAND", help="For --limit.  [default: ziglang's, else clang]")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a bar chart (SVG).")
@click.option("--maps", is_flag=True, help="Measure operations on maps, and no bundle.")
@click.option("--types", default="", help="For --maps: types, with commas between.  [default: all]")
@click.option("--key-bytes", default="4,16", show_default=True, help="For --maps: sizes of keys.")
@click.option("--fill", default="10000", show_default=True, help="For --maps: numbers of elements, which fill the map.")
@click.option("--threads", default="1", show_default=True, help="For --maps: numbers of threads on the same map.")
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    bundle: str | None,
    program: str | None,
    workload: Path | None,
    flows: str,
    frames: int,
    rounds: int,
    limit: Path | None,
    clang: str,
    plot: Path | None,
    maps: bool,
    types: str,
    key_bytes: str,
    fill: str,
    threads: str,
    insecure_unsigned: bool,
    as_json: bool,
) -> None:
    """Measure ns per frame, net of an empty program, in alternating rounds on one CPU.

    Compared are the kernel's JIT (BPF_PROG_TEST_RUN), the native code, the native code without inlining of helpers and
    maps, without look-ahead, and, with --limit, the same C compiled for this CPU with the same maps. CPU time counts,
    so other work on the machine disturbs less, but caches are shared: measure on a quiet one.

    \b
    Example:
      sudo uxdp bench load_balancer.uxdp --workload bench.json --limit load_balancer.c --plot bench.svg
      sudo uxdp bench --maps --types lru_hash,lpm_trie --fill 10000,1000000 --threads 1,2
    """
    if maps:
        if bundle is not None:
            raise ParameterError(f"{bundle}: --maps measures no bundle", context="BUNDLE")
        _bench_maps(types, key_bytes, fill, threads, as_json=as_json)
        return
    if bundle is None:
        raise ParameterError("expected a bundle, or --maps", context="BUNDLE")
    from ..bench import chart, report
    from ..bench.limit import compile_source
    from ..bench.session import Figures, Plan, Session, rounds_for
    from ..bench.workload import read_workload
    from ..compile import targets
    from ..compile.cache import cache_directory
    from ..compile.program import compile_program
    from ..differential import native_cpus
    from ..stores import control_library
    from ..verify import verify

    plan = Plan(_numbers(flows), frames, rounds)
    if frames < 1 or rounds < 1:
        raise ParameterError("expected at least one frame and one round", context="--frames, --rounds")
    content = read_workload(workload)
    with ExitStack() as stack:
        bound = stack.enter_context(bound_bundle(bundle, insecure_unsigned=insecure_unsigned))
        verified = stack.enter_context(verify(bound))
        name = program or bound.facts.programs[0].name
        target = targets.host_target()
        compiled = compile_program(verified, name, target, num_cpus=native_cpus(), cache_directory=cache_directory())
        bitcode = compile_source(limit, clang=clang) if limit is not None else None
        session = Session(compiled, target, control_library(), content, bitcode)
        stack.callback(session.close)
        figures: list[Figures] = []
        with _progress(sum(rounds_for(plan, number) for number in plan.flows)) as step:
            figures += session.measure(plan, step)
    if plot is not None:
        _write(plot, chart.draw(f"{name}, {target.cpu}", figures))
    if as_json:
        output.print_json({"bundle": bundle, "program": name, "cpu": target.cpu, "results": report.as_json(figures)})
        return
    columns, rows = report.table(figures)
    output.print_table(f"{name} on {target.cpu}: ns per frame, medians", columns, rows)


def _bench_maps(types: str, key_bytes: str, fill: str, threads: str, *, as_json: bool) -> None:
    from ..bench import maps
    from ..compile import targets

    target = targets.host_target()
    plan = maps.Plan(
        types=types.split(",") if types else tuple(maps.KINDS),
        key_sizes=_numbers(key_bytes, "--key-bytes"),
        fills=_numbers(fill, "--fill"),
        threads=_numbers(threads, "--threads"),
        rounds=_MAP_ROUNDS,
        runs=_MAP_RUNS,
    )
    maps.check(plan)
    figures = list(maps.measure(plan, target))
    if as_json:
        output.print_json({"cpu": target.cpu, "results": [figure.as_json() for figure in figures]})
        return
    rows = [
        (
            *(figure.type, figure.operation, str(figure.key_bytes), str(figure.fill), str(figure.threads)),
            *(f"{figure.kernel_ns:.1f}", f"{figure.native_ns:.1f}", f"{figure.ratio:.1f}"),
        )
        for figure in figures
    ]
    columns = ("Type", "Operation", "Key bytes", "Elements", "Threads", "Kernel", "uxdp", "Kernel / uxdp")
    output.print_table(f"{target.cpu}: ns per operation, medians", columns, rows)


def _numbers(text: str, option: str = "--flows") -> tuple[int, ...]:
    try:
        numbers = tuple(int(piece) for piece in text.split(","))
    except ValueError as cause:
        raise ParameterError(f"{text!r}, expected whole numbers with commas between", context=option) from cause
    for number in numbers:
        if not 1 <= number <= _MAX_FLOWS:
            raise ParameterError(f"{number}, expected 1..{_MAX_FLOWS}", context=option)
    return numbers


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as cause:
        raise UxdpError(f"cannot be written: {cause.strerror or cause}", context=str(path)) from cause


@contextmanager
def _progress(rounds: int) -> Iterator[Callable[[], None]]:
    """Yield what to call after each round; on a terminal it shows how many are left."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("bench", total=rounds)
        yield lambda: progress.advance(task)
