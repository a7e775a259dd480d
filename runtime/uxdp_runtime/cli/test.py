"""``uxdp test``: the same frames in the kernel and natively, and the first difference."""

import ctypes
import mmap
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from uxdp_bundle.errors import UxdpError

from ..differential import Differential, native_cpus
from ..errors import ParameterError
from ..frames.generate import Frame
from ..fuzz.case import Case, elements_of, read_case
from ..fuzz.child import CrashError, in_child
from ..fuzz.trial import MAX_MAP_DIFFERENCES, Finding, Trial
from ..map_file import Contents
from ..map_values import MapCodec
from ..outcomes import verdict_name
from . import output
from .pipeline import bound_bundle, parse_params, program_to_run, programs_to_load, report_origin
from .searching import fuzz_program, run_case, shrink_report
from .shrinking import Saving, reproduction, save
from .test_report import Report, print_report, print_sum, report_json

if TYPE_CHECKING:
    from uxdp_bundle.binding import BoundBundle

    from ..compile.program import CompiledProgram

EXIT_DIFFERENT: Final = 1
# Programs of devmap and cpumap entries: BPF_PROG_TEST_RUN refuses them, and no interface runs them.
_OF_ENTRIES: Final = frozenset({"devmap", "cpumap"})
_MANUAL: Final = "manual"


@dataclass(frozen=True, slots=True)
class _Source:
    """Where frames come from: a capture, or the generator with what steers it."""

    capture: str | None
    count: int
    seed: int
    constants: frozenset[int | bytes]

    @contextmanager
    def open(self, what: str = "", *, progress: bool) -> Iterator[Iterator[Frame]]:
        """Yield the frames from the beginning, always the same."""
        from ..frames.capture import CaptureReader
        from ..frames.generate import generate

        if self.capture is None:
            frames = generate(self.count, self.seed, self.constants)
            shown = output.with_progress(frames, what, total=self.count, done=lambda number: number, wanted=progress)
            with closing(shown):
                yield shown
            return
        with CaptureReader(self.capture) as reader:
            frames = (Frame(packet.data, description=f"packet {packet.number}") for packet in reader)
            shown = output.with_progress(
                frames, what, total=reader.size_bytes, done=lambda _: reader.position_bytes, wanted=progress
            )
            with closing(shown):
                yield shown

    def frames(self, count: int | None) -> tuple[Frame, ...]:
        """Return the first frames of those that can be run; None: all."""
        with self.open(progress=False) as frames:
            return tuple(islice(_runnable(frames, Counter()), count))


@click.command()
@click.argument("bundle", metavar="BUNDLE|NAME")
@click.option("--program", metavar="NAME", help="Program to test.  [default: every program of the bundle]")
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of frames to generate."
)
@click.option("--seed", default=1, show_default=True, help="Of the generated frames.")
@click.option("--pcap", "capture", type=click.Path(), help="Take the frames from a capture instead (pcap, pcapng).")
@click.option(
    "--maps", "maps_file", type=click.Path(), help="Fill the maps from a JSON file first (bpftool's format too)."
)
@click.option("--set", "assignments", metavar="MAP:KEY=VALUE", multiple=True, help="Set one map element first.")
@click.option(
    "--param",
    "params",
    metavar="NAME=VALUE",
    multiple=True,
    help="Set a constant before loading; see `uxdp inspect`. May be repeated.",
)
@click.option("--shrink", "shrinks", is_flag=True, help="Look for the fewest frames, bytes and elements that differ.")
@click.option(
    "--shrink-seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How long to look, for each program.",
)
@click.option(
    "--fuzz",
    "fuzz_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Search so long for each program: frames and changes of maps evolve towards new branches of the code.",
)
@click.option(
    "--corpus",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="With --fuzz: begin with the inputs in a folder, and keep there what reaches new branches.",
)
@click.option("--steps", "steps_file", metavar="FILE", type=click.Path(), help="Run what --save-steps has saved.")
@click.option(
    "--save-frames",
    "saved_frames",
    metavar="FILE",
    type=click.Path(),
    help="If there is a difference, write the frames up to it to a capture, for --pcap.",
)
@click.option(
    "--save-maps",
    "saved_maps",
    metavar="FILE",
    type=click.Path(),
    help="If there is a difference, write what the maps began with, for --maps.",
)
@click.option(
    "--save-steps",
    "saved_steps",
    metavar="FILE",
    type=click.Path(),
    help="If there is a difference, write all that led to it, changes of maps and metadata too, for --steps.",
)
@click.option("--insecure-unsigned", is_flag=True, help="Go on with a bundle that nobody you trust has signed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test(
    bundle: str,
    program: str | None,
    count: int,
    seed: int,
    capture: str | None,
    maps_file: str | None,
    assignments: tuple[str, ...],
    params: tuple[str, ...],
    shrinks: bool,
    shrink_seconds: float,
    fuzz_seconds: float | None,
    corpus: str | None,
    steps_file: str | None,
    saved_frames: str | None,
    saved_maps: str | None,
    saved_steps: str | None,
    insecure_unsigned: bool,
    as_json: bool,
) -> int:
    """Prove that the native code does what the kernel does: verdicts, bytes, metadata, redirects, records, maps.

    Runs the same frames through BPF_PROG_TEST_RUN and the native module, with state carried along. The frames are
    generated: flows that come again, valid, broken, and made for what the program compares with; or a capture's. The
    first difference is shown side by side, and the exit code is then 1; with --shrink it is made as small as it gets.
    With --fuzz frames and maps evolve for a time instead. Needs what `uxdp verify` needs, and CAP_SYS_ADMIN to see
    where redirected frames go.

    \b
    Example:
      sudo uxdp test load_balancer.uxdp --set 'config:0={"local_addr": "10.0.0.9"}' -n 10000
      sudo uxdp test firewall --param default_action=0 --pcap trace.pcapng --maps maps.json
      sudo uxdp test nf.uxdp --seed 7 --shrink --save-frames difference.pcap --save-maps difference.json
      sudo uxdp test nf.uxdp --pcap difference.pcap --maps difference.json --json | jq .equal
      sudo uxdp test nf.uxdp --fuzz 60 --corpus corpus --save-steps difference.json
    """
    from ..frames.constants import constants_of, keys_of
    from ..map_file import read_map_file

    if corpus is not None and fuzz_seconds is None:
        raise click.UsageError("--corpus belongs to --fuzz")
    if steps_file is not None and (fuzz_seconds is not None or capture is not None):
        raise click.UsageError("--steps is all that is run: neither --fuzz nor --pcap goes with it")
    started = time.monotonic()
    reports: list[Report] = []
    saving = Saving(saved_frames, saved_maps, saved_steps)
    with bound_bundle(bundle, insecure_unsigned=insecure_unsigned) as bound:
        opened = bound.authentic.bundle
        values = parse_params(opened, params)
        obj = bytes(opened.object)
        contents = read_map_file(obj, maps_file, assignments)
        codecs = MapCodec.for_object(obj)
        # Frames that hit what the maps were filled with say more than frames that miss it.
        keys = keys_of(bound.facts.maps, contents)
        given = {value for value in values.values() if value}
        source = _Source(capture, count, seed, frozenset({*constants_of(obj), *keys, *given}))
        for name in _programs(bound, program):
            trial = _trial(bound, name, values)
            if steps_file is not None:
                report = run_case(trial, read_case(steps_file, codecs), contents)
            elif fuzz_seconds is not None:
                report = fuzz_program(
                    trial,
                    contents,
                    source.constants,
                    seconds=fuzz_seconds,
                    seed=seed,
                    seeds=source.frames(None) if capture is not None else (),
                    corpus=corpus,
                    progress=not as_json,
                )
            else:
                report = _compare(bound, name, values, contents, source, progress=not as_json)
            is_first = not report.equal and all(one.equal for one in reports)
            reports.append(report)
            if not report.equal:
                if report.case is None and (shrinks or (saving and is_first)):
                    report.case = Case(elements_of(contents), source.frames(report.frames))
                if shrinks or fuzz_seconds is not None:
                    shrink_report(report, trial, seconds=shrink_seconds, progress=not as_json)
                smallest = report.case if report.shrunk is None else report.shrunk.case
                where = saving if is_first else Saving()
                if smallest is not None:
                    save(smallest, where, codecs)
                    report.again += reproduction(
                        bundle, name, smallest, where, params=params, insecure_unsigned=insecure_unsigned
                    )
                elif capture is None:
                    output.note("add --shrink for the fewest frames that differ, --save-frames FILE to keep them")
            if not as_json:
                print_report(report, codecs)
        if as_json:
            output.print_json(report_json(opened.path, reports, codecs))
        else:
            print_sum(reports, time.monotonic() - started, filled=bool(contents))
    return EXIT_DIFFERENT if any(not report.equal for report in reports) else 0


def _trial(bound: "BoundBundle", name: str, params: Mapping[str, int | bytes]) -> Trial:
    from ..compile.cache import cache_directory
    from ..stores import control_library

    return Trial(
        bound,
        name,
        programs=programs_to_load(bound, name),
        params=params,
        control=control_library(),
        cache_directory=cache_directory(),
    )


def _programs(bound: "BoundBundle", wanted: str | None) -> list[str]:
    """Return the programs to test: the one that is named, or all that are loaded without being named."""
    facts = {fact.name: fact for fact in bound.facts.programs}
    if wanted is not None:
        name = program_to_run(bound.authentic.bundle, wanted)
        if _OF_ENTRIES & set(facts[name].flags):
            raise ParameterError(
                "runs for entries of a devmap or cpumap, and the kernel tests no such program",
                context=f"program {name}",
            )
        return [name]
    names = [name for name, fact in facts.items() if not {*_OF_ENTRIES, _MANUAL} & set(fact.flags)]
    for name in [name for name in facts if name not in names]:
        output.note(f"{name} is not tested: it is for entries of maps, or loaded only if named")
    if not names:
        raise ParameterError("there is no program to test without naming it", context=bound.authentic.bundle.path)
    return names


def _compare(
    bound: "BoundBundle",
    name: str,
    params: Mapping[str, int | bytes],
    contents: Contents,
    source: _Source,
    *,
    progress: bool,
) -> Report:
    """Run the frames through one program on both sides, from fresh maps on; native code that crashes differs, too."""
    from ..compile.cache import cache_directory
    from ..compile.program import compile_program
    from ..verify import verify

    with verify(bound, programs=programs_to_load(bound, name), params=params) as verified:
        compiled = compile_program(verified, name, None, num_cpus=native_cpus(), cache_directory=cache_directory())
        report_origin(compiled)
        # The child's is the same memory.
        taken = ctypes.c_uint64.from_buffer(mmap.mmap(-1, ctypes.sizeof(ctypes.c_uint64)))
        try:
            report = in_child(lambda: _run(compiled, name, contents, source, taken, progress=progress))
        except CrashError as crash:
            if not taken.value:
                raise
            report = Report(name, frames=taken.value, finding=Finding(taken.value, crash=crash.signal))
        report.origin = compiled.origin.value
    return report


def _run(
    compiled: "CompiledProgram",
    name: str,
    contents: Contents,
    source: _Source,
    taken: ctypes.c_uint64,
    *,
    progress: bool,
) -> Report:
    """Run the frames until one differs.

    :param taken: is told how many frames were taken so far
    """
    from ..stores import control_library

    report = Report(name)
    with (
        Differential(compiled, control_library()) as sides,
        source.open(f"test {name}", progress=progress) as frames,
    ):
        sides.fill(contents)
        for _frame, outcome, difference in sides.run(_counted(_runnable(frames, report.skipped), taken)):
            report.frames += 1
            report.verdicts[verdict_name(outcome.verdict)] += 1
            report.targets += outcome.redirect is not None
            report.records += sum(len(records.submitted) for records in outcome.records)
            if difference is not None:
                report.finding = Finding(report.frames, frame=difference)
                break
        if report.frames == 0:
            raise UxdpError("no frame to test with", context=source.capture or "")
        if report.finding is None:
            maps = tuple(islice(sides.map_differences(), MAX_MAP_DIFFERENCES))
            report.finding = Finding(report.frames, maps=maps) if maps else None
        report.left_out = sides.left_out
        report.targets_not_compared = dict(sides.targets_not_compared)
        report.maps = sides.maps
    return report


def _counted(frames: Iterator[Frame], taken: ctypes.c_uint64) -> Iterator[Frame]:
    for frame in frames:
        taken.value += 1
        yield frame


def _runnable(frames: Iterator[Frame], skipped: Counter[str]) -> Iterator[Frame]:
    """Yield the frames that can be run on both sides, and count the others by the reason."""
    from ..bpf.test_run import MIN_FRAME_BYTES
    from ..native_module import MAX_FRAME_BYTES

    for frame in frames:
        if len(frame.data) < MIN_FRAME_BYTES:
            skipped[f"shorter than {MIN_FRAME_BYTES} bytes"] += 1
        elif len(frame.data) > MAX_FRAME_BYTES:
            skipped[f"longer than {MAX_FRAME_BYTES} bytes"] += 1
        else:
            yield frame
