"""Shrinking: what does not matter goes, the difference stays, time is kept."""

from collections.abc import Callable

from uxdp_runtime.frames.generate import Frame, generate
from uxdp_runtime.fuzz.case import Case, Element
from uxdp_runtime.fuzz.shrink import shrink
from uxdp_runtime.fuzz.trial import Finding
from uxdp_runtime.outcomes import MapDifference
from uxdp_runtime.steps import MapChange

MAPS = (MapDifference("table", bytes(4), b"\1", b"\2", b"\2"),)
ELEMENTS = tuple(Element("table", bytes([key, 0, 0, 0]), bytes([key] * 8)) for key in range(20))


def judge_by(differs: Callable[[Case], bool]) -> Callable[[Case], Finding | None]:
    return lambda case: Finding(len(case.steps), maps=MAPS) if differs(case) else None


def test_shrink_keeps_what_the_difference_needs_and_nothing_else() -> None:
    def differs(case: Case) -> bool:
        """A change of key 7, later a frame with 0xAB at 20 and 0xCD at 30, and an element with a certain byte."""
        is_open = False
        for step in case.steps:
            if isinstance(step, MapChange):
                is_open |= step.key == b"\7" and step.value is not None and step.value[2] == 9
            elif is_open and len(step.data) > 30 and (step.data[20], step.data[30]) == (0xAB, 0xCD):
                return any(element.value[3:4] == b"\x0b" for element in case.elements)
        return False

    frames = list(generate(60, 1))
    hit = bytearray(frames[40].data.ljust(400, b"\xee"))
    hit[20], hit[30] = 0xAB, 0xCD
    steps = [
        *frames[:20],
        MapChange("table", b"\6", bytes([9] * 8)),
        MapChange("table", b"\7", bytes([9] * 8), 1),
        *frames[20:40],
        Frame(bytes(hit), metadata=bytes(8)),
        *frames[41:],
    ]
    case = Case(ELEMENTS, tuple(steps))
    assert differs(case)
    found = shrink(case, Finding(len(steps), maps=MAPS), judge_by(differs), seconds=60)
    assert found.complete
    assert found.case.elements == (Element("table", b"\x0b\0\0\0", b"\0\0\0\x0b\0\0\0\0"),)
    change, frame = found.case.steps
    assert change == MapChange("table", b"\7", b"\0\0\x09" + bytes(5))
    assert isinstance(frame, Frame)
    assert frame.data == bytes(20) + b"\xab" + bytes(9) + b"\xcd"
    assert frame.metadata == b""
    assert differs(found.case)
    assert found.attempts < 2000


def test_shrink_of_one_frame_removes_bytes_from_its_middle() -> None:
    def differs(case: Case) -> bool:
        return any(b"needle" in frame.data for frame in case.frames)

    case = Case((), (Frame(bytes(range(1, 200)) + b"needle" + b"\xff" * 90),))
    found = shrink(case, Finding(1, maps=MAPS), judge_by(differs), seconds=60)
    (frame,) = found.case.frames
    assert len(frame.data) == 14
    assert frame.data.strip(b"\0") == b"needle"


def test_shrink_stops_when_the_time_is_over_with_the_smallest_so_far() -> None:
    reported: list[int] = []
    case = Case(ELEMENTS, tuple(generate(500, 2)))
    found = shrink(
        case,
        Finding(100, maps=MAPS),
        judge_by(lambda _case: True),
        seconds=0,
        report=lambda _elapsed, now: reported.append(len(now.steps)),
    )
    assert not found.complete
    assert found.case == case
    assert found.attempts == 0
    assert reported == [500]


def test_shrink_what_differs_only_as_a_whole_stays_as_it_is() -> None:
    case = Case(ELEMENTS[:2], tuple(generate(3, 2)))
    found = shrink(case, Finding(3, maps=MAPS), judge_by(lambda one: one == case), seconds=60)
    assert (found.case, found.complete) == (case, True)
