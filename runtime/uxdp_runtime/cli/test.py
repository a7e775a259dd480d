"""``uxdp test``: the same frames in the kernel and natively, and the first difference."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from uxdp_bundle.errors import UxdpError

from ..differential import Differential, FrameDifference, native_cpus
from ..errors import ParameterError
from ..frames.generate import Frame
from ..map_file import codec_of, readable_name
from ..map_values import MapCodec
from ..outcomes import MapDifference, verdict_name
from . import differences, output
from .pipeline import bound_bundle, parse_params, program_to_run, programs_to_load, report_origin

if TYPE_CHECKING:
    from uxdp_bundle.binding import BoundBundle

EXIT_DIFFERENT: Final = 1
_SHOWN_MAP_DIFFERENCES: Final = 10
# Programs of devmap and cpumap entries: BPF_PROG_TEST_RUN refuses them, and no interface runs them.
_OF_ENTRIES: Final = frozenset({"devmap", "cpumap"})
_IN_BURSTS: Final = ", but only when frames are run in bursts"
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


@dataclass(slots=True)
class _Report:
    """What came of one program."""

    program: str
    origin: str = ""
    frames: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    difference: FrameDifference | None = None
    maps: list[MapDifference] = field(default_factory=list)
    targets: int = 0
    records: int = 0
    num_maps: int = 0
    left_out: int = 0
    targets_not_compared: Mapping[str, int] = field(default_factory=dict)
    maps_not_compared: str = ""
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def equal(self) -> bool:
        return self.difference is None and not self.maps


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
@click.option(
    "--save-frames",
    "saved",
    metavar="FILE",
    type=click.Path(),
    help="If there is a difference, write the frames up to it to a capture, for --pcap.",
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
    saved: str | None,
    insecure_unsigned: bool,
    as_json: bool,
) -> int:
    """Prove that the native code does what the kernel does: verdicts, bytes, metadata, redirects, records, maps.

    Runs the same frames through BPF_PROG_TEST_RUN and the native module, with state carried along. The frames are
    generated: flows that come again, valid, broken, and made for what the program compares with; or a capture's. The
    first difference is shown side by side, and the exit code is then 1. Needs what `uxdp verify` needs, and
    CAP_SYS_ADMIN to see where redirected frames go.

    \b
    Example:
      sudo uxdp test load_balancer.uxdp --set 'config:0={"local_addr": "10.0.0.9"}' -n 10000
      sudo uxdp test firewall --param default_action=0 --pcap trace.pcapng --maps maps.json
      sudo uxdp test nf.uxdp --seed 7 --save-frames difference.pcap
      sudo uxdp test nf.uxdp --pcap difference.pcap --json | jq .equal
    """
    from ..frames.constants import constants_of, keys_of
    from ..map_file import read_map_file

    started = time.monotonic()
    reports: list[_Report] = []
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
            report = _compare(bound, name, values, contents, source, progress=not as_json)
            reports.append(report)
            if not as_json:
                _print(report, codecs)
        different = next((report for report in reports if not report.equal), None)
        if different is not None and saved is not None:
            _save(saved, different, source)
        elif different is not None and capture is None:
            output.note("add --save-frames FILE to keep the frames that led to the difference")
        if as_json:
            output.print_json(_json(opened.path, reports, codecs))
        else:
            _print_sum(reports, time.monotonic() - started, filled=bool(contents))
    return EXIT_DIFFERENT if different is not None else 0


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
    contents: Mapping[str, list[tuple[bytes, bytes]]],
    source: _Source,
    *,
    progress: bool,
) -> _Report:
    """Run the frames through one program on both sides, from fresh maps on."""
    from ..compile.cache import cache_directory
    from ..compile.program import compile_program
    from ..stores import control_library
    from ..verify import verify

    report = _Report(name)
    with verify(bound, programs=programs_to_load(bound, name), params=params) as verified:
        compiled = compile_program(verified, name, None, num_cpus=native_cpus(), cache_directory=cache_directory())
        report_origin(compiled)
        report.origin = compiled.origin.value
        with (
            Differential(compiled, control_library()) as sides,
            source.open(f"test {name}", progress=progress) as frames,
        ):
            sides.fill(contents)
            for _frame, outcome, difference in sides.run(_runnable(frames, report.skipped)):
                report.frames += 1
                report.verdicts[verdict_name(outcome.verdict)] += 1
                report.targets += outcome.redirect is not None
                report.records += sum(len(records.submitted) for records in outcome.records)
                if difference is not None:
                    report.difference = difference
                    break
            if report.frames == 0:
                raise UxdpError("no frame to test with", context=source.capture or "")
            if report.difference is None:
                report.maps = list(islice(sides.map_differences(), _SHOWN_MAP_DIFFERENCES))
            report.num_maps = len(verified.maps)
            report.left_out = sides.left_out
            report.targets_not_compared = dict(sides.targets_not_compared)
            report.maps_not_compared = sides.maps_not_compared
    return report


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


def _save(path: str, report: _Report, source: _Source) -> None:
    """Write the frames that led to a difference."""
    from ..frames.capture_writer import CaptureWriter

    with_metadata = 0
    with source.open(progress=False) as frames, CaptureWriter(path) as writer:
        for number, frame in enumerate(islice(_runnable(frames, Counter()), report.frames)):
            writer.write(frame.data, number)
            with_metadata += bool(frame.metadata)
    output.note(f"{path}: the {report.frames} frames after which {report.program} differs; run them with --pcap {path}")
    if with_metadata:
        output.note(f"{path}: {with_metadata} of them had metadata, which a capture does not hold")


def _print(report: _Report, codecs: Mapping[str, MapCodec]) -> None:
    verdicts = ", ".join(f"{verdict} {number}" for verdict, number in report.verdicts.most_common())
    if report.equal:
        output.say(f"{report.program}: equal on {report.frames} frames ({verdicts})")
        output.say(f"  compared {_compared(report)}")
    elif report.difference is not None:
        what = report.difference.what + (_IN_BURSTS if report.difference.in_bursts else "")
        output.say(f"{report.program}: DIFFERENT: {what}, after {report.frames} frames ({verdicts})")
        differences.print_frame(report.difference)
    else:
        shown = len(report.maps)
        more = " or more" if shown == _SHOWN_MAP_DIFFERENCES else ""
        count = output.counted(shown, "element") + f"{more} of maps" + (_IN_BURSTS if report.maps[0].in_bursts else "")
        output.say(f"{report.program}: DIFFERENT: {count}, after {report.frames} frames ({verdicts})")
        for item in report.maps:
            differences.print_element(item, codec_of(item.map, codecs), readable_name(item.map, codecs))
    for reason in _left_out(report):
        output.say(f"  {reason}")


def _compared(report: _Report) -> str:
    """Say what was compared: verdicts, bytes and metadata, which every frame has, and what else there was."""
    counts = ((report.targets, "redirect target"), (report.records, "ring-buffer record"), (report.num_maps, "map"))
    return ", ".join(("verdicts, bytes, metadata", *(output.counted(*count) for count in counts if count[0])))


def _left_out(report: _Report) -> Iterator[str]:
    """Yield what was not compared, how often, and why."""
    for reason, number in report.skipped.items():
        yield f"not run: {output.counted(number, 'frame')} {reason}"
    if report.left_out:
        frames = output.counted(report.left_out, "frame")
        yield f"not compared: {frames}, because what becomes of them depends on time or chance"
    for reason, number in report.targets_not_compared.items():
        yield f"not compared: {output.counted(number, 'redirect target')}: {reason}"
    if report.maps_not_compared:
        yield f"not compared: {output.counted(report.num_maps, 'map')}: {report.maps_not_compared}"


def _print_sum(reports: list[_Report], seconds: float, *, filled: bool) -> None:
    different = [report.program for report in reports if not report.equal]
    frames = sum(report.frames for report in reports)
    result = f"DIFFERENT: {', '.join(different)}" if different else "equal"
    what = f"{output.counted(len(reports), 'program')}, {output.counted(frames, 'frame')}"
    output.say(f"{what}, {seconds:.1f} s: {result}")
    for report in reports:
        if report.equal and len(report.verdicts) == 1 and report.num_maps and not filled:
            (verdict,) = report.verdicts
            output.note(f"{report.program}: {verdict} for every frame; if maps decide, fill them with --maps or --set")


def _json(path: str, reports: list[_Report], codecs: Mapping[str, MapCodec]) -> dict[str, Any]:
    return {
        "bundle": path,
        "equal": all(report.equal for report in reports),
        "programs": [
            {
                "program": report.program,
                "origin": report.origin,
                "equal": report.equal,
                "frames": report.frames,
                "verdicts": dict(report.verdicts),
                "difference": None if report.difference is None else differences.frame_json(report.difference),
                "maps": [
                    differences.element_json(item, codec_of(item.map, codecs), readable_name(item.map, codecs))
                    for item in report.maps
                ],
                "redirect_targets": report.targets,
                "records": report.records,
                "not_run": dict(report.skipped),
                "frames_not_compared": report.left_out,
                "redirect_targets_not_compared": dict(report.targets_not_compared),
                "maps_not_compared": report.maps_not_compared,
            }
            for report in reports
        ],
    }
