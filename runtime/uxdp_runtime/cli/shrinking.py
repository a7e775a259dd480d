"""How ``uxdp test`` shrinks a difference, shows what is left, and says how to see it again."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import hexdump
from ..frames.generate import Frame
from ..fuzz.case import Case, summary, write_case, write_text
from ..fuzz.shrink import Shrunk, shrink
from ..fuzz.trial import Finding, Trial
from ..map_file import codec_of, dump, readable_name
from ..map_layout import Notation
from ..map_values import MapCodec
from ..steps import Step
from . import output

# A difference that depends on the moment may not come at once.
_TRIES: Final = 3
_SHOWN_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class Saving:
    """Where to write what shows a difference again: a capture, a JSON file of maps, and all of it in one file."""

    frames: str | None = None
    maps: str | None = None
    steps: str | None = None

    def __bool__(self) -> bool:
        return any((self.frames, self.maps, self.steps))


def shrink_difference(trial: Trial, case: Case, finding: Finding, *, seconds: float, progress: bool) -> Shrunk | None:
    """Shrink a case that differs; None if it does not differ again."""
    judge = trial.judge(finding.kind)
    for _ in range(_TRIES):
        again = judge(case)
        if again is not None:
            break
    else:
        return None
    with output.time_bar(f"shrink {trial.program}", seconds, wanted=progress) as show:
        return shrink(
            case, again, judge, seconds=seconds, report=lambda elapsed, now: show(elapsed, f"{len(now.steps)} steps")
        )


def print_case(case: Case, codecs: Mapping[str, MapCodec]) -> None:
    """Print the elements that maps begin with, and what happens before the last step."""
    for element in case.elements:
        codec = codec_of(element.map, codecs)
        key, value = codec.decode_key(element.key, notation=Notation.ADDRESSES), _decoded(codec, element.value)
        output.say(f"  map {readable_name(element.map, codecs)}, key {_text(key)}: {_text(value)}")
    before = case.steps[:-1]
    for number, step in enumerate(before[:_SHOWN_STEPS]):
        output.say(f"  step {number}: {_described(step, codecs)}")
        if isinstance(step, Frame):
            for line in hexdump.rows(step.data):
                output.say(f"    {line}")
    if len(before) > _SHOWN_STEPS:
        output.say(f"  … {len(before) - _SHOWN_STEPS} steps more")


def print_shrunk(shrunk: Shrunk, original: Case) -> None:
    """Print from what to what a case was shrunk."""
    limit = "" if shrunk.complete else ", when the time was over (--shrink-seconds)"
    output.say(
        f"  shrunk from {summary(original)} to {summary(shrunk.case)}, "
        f"{output.counted(shrunk.attempts, 'attempt')}, {shrunk.seconds:.1f} s{limit}"
    )


def save(case: Case, saving: Saving, codecs: Mapping[str, MapCodec]) -> None:
    """Write a case to the files that a user names."""
    from ..frames.capture_writer import CaptureWriter

    if saving.frames is not None:
        with CaptureWriter(saving.frames) as writer:
            for number, frame in enumerate(case.frames):
                writer.write(frame.data, number)
    if saving.maps is not None:
        write_text(saving.maps, json.dumps(dump(case.contents, codecs), indent=2) + "\n")
    if saving.steps is not None:
        write_case(saving.steps, case)


def reproduction(
    bundle: str, program: str, case: Case, saving: Saving, *, params: Sequence[str], insecure_unsigned: bool
) -> Iterator[str]:
    """Yield lines that say how to see a difference again."""
    command = ["uxdp", "test", bundle, "--program", program]
    for param in params:
        command += ["--param", param]
    if insecure_unsigned:
        command.append("--insecure-unsigned")
    lost = [
        *(["metadata of frames"] if any(frame.metadata for frame in case.frames) else []),
        *(["changes of maps between frames"] if case.changes else []),
    ]
    if saving.steps is not None:
        yield f"again: {shlex.join([*command, '--steps', saving.steps])}"
    elif saving.frames is not None and not lost and (saving.maps is not None or not case.elements):
        maps = ["--maps", saving.maps] if saving.maps is not None and case.elements else []
        yield f"again: {shlex.join([*command, '--pcap', saving.frames, *maps])}"
    elif saving:
        missing = [*lost, *(["elements of maps"] if case.elements and saving.maps is None else [])]
        yield f"the files do not hold {' and '.join(missing)}: --save-steps FILE keeps all"
    else:
        yield "add --save-steps FILE (or --save-frames and --save-maps) to keep what shows it again"


def _described(step: Step, codecs: Mapping[str, MapCodec]) -> str:
    if isinstance(step, Frame):
        what = f"frame of {len(step.data)} bytes"
        return f"{what} behind {len(step.metadata)} bytes of metadata" if step.metadata else what
    codec, name = codec_of(step.map, codecs), readable_name(step.map, codecs)
    key = _text(codec.decode_key(step.key, notation=Notation.ADDRESSES))
    if step.value is None:
        return f"map {name}, key {key} deleted"
    flags = f", flags {step.flags}" if step.flags else ""
    return f"map {name}, key {key} set to {_text(_decoded(codec, step.value))}{flags}"


def _decoded(codec: MapCodec, value: bytes) -> Any:
    return codec.decode(value, notation=Notation.ADDRESSES)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
