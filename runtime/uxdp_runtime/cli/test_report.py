"""What ``uxdp test`` found out about one program, as text and as JSON."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..differential import SEEN_OTHERWISE, MapsCompared
from ..fuzz.case import Case, case_json
from ..fuzz.fuzzer import FuzzResult
from ..fuzz.shrink import Shrunk
from ..fuzz.trial import MAX_MAP_DIFFERENCES, Finding
from ..map_file import codec_of, readable_name
from ..map_values import MapCodec
from . import differences, output, shrinking

_IN_BURSTS: Final = ", but only when frames are run in bursts"


@dataclass(slots=True)
class Report:
    """What came of one program.

    ``case`` is what led to ``finding``; ``shrunk`` the smallest such case, if one was looked for and ``finding`` came
    again; ``again`` says how to see it again.
    """

    program: str
    origin: str = ""
    frames: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    finding: Finding | None = None
    targets: int = 0
    records: int = 0
    maps: MapsCompared = field(default_factory=MapsCompared)
    left_out: int = 0
    targets_not_compared: Mapping[str, int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    fuzz: FuzzResult | None = None
    case: Case | None = None
    shrunk: Shrunk | None = None
    wanted_shrunk: bool = False
    again: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.finding is None


def print_report(report: Report, codecs: Mapping[str, MapCodec]) -> None:
    """Print what came of one program."""
    verdicts = ", ".join(f"{verdict} {number}" for verdict, number in report.verdicts.most_common())
    found = report.finding
    ran = f"{report.frames} frames ({verdicts})" if verdicts else f"{report.frames} frames"
    if found is None:
        output.say(f"{report.program}: equal on {ran}")
        output.say(f"  compared {_compared(report)}")
    else:
        output.say(f"{report.program}: DIFFERENT: {_what(found)}, after {ran}")
        if report.shrunk is not None and report.case is not None:
            shrinking.print_shrunk(report.shrunk, report.case)
            shrinking.print_case(report.shrunk.case, codecs)
            found = report.shrunk.finding
        elif report.wanted_shrunk:
            output.say("  not shrunk: the difference did not come again, so it depends on the moment")
        _print_finding(found, codecs)
    if report.fuzz is not None:
        output.say(f"  {_explored(report.fuzz)}")
    for reason in _left_out(report):
        output.say(f"  {reason}")
    for line in report.again:
        output.say(f"  {line}")


def print_sum(reports: list[Report], seconds: float, *, filled: bool) -> None:
    """Print what came of all programs."""
    different = [report.program for report in reports if not report.equal]
    frames = sum(report.frames for report in reports)
    result = f"DIFFERENT: {', '.join(different)}" if different else "equal"
    what = f"{output.counted(len(reports), 'program')}, {output.counted(frames, 'frame')}"
    output.say(f"{what}, {seconds:.1f} s: {result}")
    for report in reports:
        has_maps = report.maps.number or report.maps.apart
        if report.equal and len(report.verdicts) == 1 and has_maps and not filled:
            (verdict,) = report.verdicts
            output.note(f"{report.program}: {verdict} for every frame; if maps decide, fill them with --maps or --set")


def report_json(path: str, reports: list[Report], codecs: Mapping[str, MapCodec]) -> dict[str, Any]:
    """Return what came of all programs as JSON-able values."""
    return {
        "bundle": path,
        "equal": all(report.equal for report in reports),
        "programs": [_program_json(report, codecs) for report in reports],
    }


def _program_json(report: Report, codecs: Mapping[str, MapCodec]) -> dict[str, Any]:
    found = report.finding if report.shrunk is None else report.shrunk.finding
    document: dict[str, Any] = {
        "program": report.program,
        "origin": report.origin,
        "equal": report.equal,
        "frames": report.frames,
        "verdicts": dict(report.verdicts),
        "difference": None if found is None or found.frame is None else differences.frame_json(found.frame),
        "maps": [
            differences.element_json(item, codec_of(item.map, codecs), readable_name(item.map, codecs))
            for item in (found.maps if found else ())
        ],
        "redirect_targets": report.targets,
        "records": report.records,
        "not_run": dict(report.skipped),
        "frames_not_compared": report.left_out,
        "redirect_targets_not_compared": dict(report.targets_not_compared),
        "maps_compared": report.maps.number,
        "maps_not_compared": dict(report.maps.apart),
    }
    if found is not None and found.change is not None:
        change = found.change
        document["change"] = {"what": str(change.change), "kernel": change.kernel, "native": change.native}
    if found is not None and found.crash is not None:
        document["crash"] = found.crash.name
    if report.again:
        document["again"] = report.again
    if report.shrunk is not None:
        shrunk = report.shrunk
        document["shrunk"] = {
            "attempts": shrunk.attempts,
            "seconds": round(shrunk.seconds, 3),
            "complete": shrunk.complete,
            "case": case_json(shrunk.case),
        }
    if report.fuzz is not None:
        fuzz = report.fuzz
        document["fuzz"] = {
            "seconds": round(fuzz.seconds, 3),
            "inputs": fuzz.inputs,
            "frames": fuzz.frames,
            "changes": fuzz.changes,
            "edges": fuzz.edges,
            "edges_reached": fuzz.edges_reached,
            "corpus": fuzz.corpus,
            "epochs": fuzz.epochs,
            "not_repeated": fuzz.unrepeated,
        }
    return document


def _what(found: Finding) -> str:
    if found.crash is not None:
        return f"native code ended its process by {found.crash.name}"
    if found.frame is not None:
        return found.frame.what + (_IN_BURSTS if found.frame.in_bursts else "")
    if found.change is not None:
        return "the answer to a change of a map"
    shown = len(found.maps)
    more = " or more" if shown == MAX_MAP_DIFFERENCES else ""
    return output.counted(shown, "element") + f"{more} of maps" + (_IN_BURSTS if found.maps[0].in_bursts else "")


def _print_finding(found: Finding, codecs: Mapping[str, MapCodec]) -> None:
    if found.frame is not None:
        differences.print_frame(found.frame)
    if found.change is not None:
        name = found.change.change.map
        differences.print_change(found.change, codec_of(name, codecs), readable_name(name, codecs))
    for item in found.maps:
        differences.print_element(item, codec_of(item.map, codecs), readable_name(item.map, codecs))


def _explored(fuzz: FuzzResult) -> str:
    rate = fuzz.frames / fuzz.seconds if fuzz.seconds else 0
    return (
        f"{output.counted(fuzz.inputs, 'input')} of {output.counted(fuzz.frames, 'frame')} and "
        f"{output.counted(fuzz.changes, 'change')} of maps, {rate:.0f} frames/s; "
        f"{fuzz.edges_reached} of {fuzz.edges} edges reached, by {output.counted(fuzz.corpus, 'input')}"
    )


def _compared(report: Report) -> str:
    """Say what was compared: verdicts, bytes and metadata, which every frame has, and what else there was."""
    counts = (
        (report.targets, "redirect target"),
        (report.records, "ring-buffer record"),
        (report.maps.number, "map"),
    )
    return ", ".join(("verdicts, bytes, metadata", *(output.counted(*count) for count in counts if count[0])))


def _left_out(report: Report) -> Iterator[str]:
    """Yield what was not compared, how often, and why."""
    for reason, number in report.skipped.items():
        yield f"not run: {output.counted(number, 'frame')} {reason}"
    if report.left_out:
        frames = output.counted(report.left_out, "frame")
        yield f"not compared: {frames}, because what becomes of them depends on time or chance"
    if report.fuzz is not None and report.fuzz.unrepeated:
        found = output.counted(report.fuzz.unrepeated, "difference")
        yield f"not counted: {found} that did not come again from the same maps and frames, so depend on the moment"
    for reason, number in report.targets_not_compared.items():
        yield f"not compared: {output.counted(number, 'redirect target')}: {reason}"
    for reason, names in report.maps.apart.items():
        if reason not in SEEN_OTHERWISE:
            yield f"not compared: {', '.join(names)}: {reason}"
