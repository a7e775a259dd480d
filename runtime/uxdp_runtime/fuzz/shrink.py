"""Shrink a case that differs: fewer steps, fewer elements, shorter frames, simpler bytes, by trying.

Delta debugging: leave out a part, and if it still differs, leave it out for good; from halves down to single things.
What a case is made of is shrunk in turns, since less of the one makes less of the other possible, until nothing more
can go. The kind of the difference stays the same, so that one cause is not shrunk into another.

Reference: A. Zeller, R. Hildebrandt: Simplifying and Isolating Failure-Inducing Input, IEEE TSE 28(2), 2002
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ..frames.generate import ETH_HLEN, Frame
from ..steps import MapChange, Step
from .case import Case
from .trial import Finding

_T = TypeVar("_T")

_MAX_ROUNDS: Final = 20
_FINEST_SHARE: Final = 64  # of a long frame no fewer bytes are left out at once


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest case that was found, its difference, how many were tried, and whether time allowed to try all."""

    case: Case
    finding: Finding
    attempts: int
    seconds: float
    complete: bool


def shrink(
    case: Case,
    finding: Finding,
    judge: Callable[[Case], Finding | None],
    *,
    seconds: float,
    report: Callable[[float, Case], None] = lambda _elapsed, _case: None,
) -> Shrunk:
    """Shrink a case.

    :param judge: runs a case from fresh state; returns its difference if it is of the same kind
    :param seconds: when to stop, at the latest by the end of the attempt under way
    :param report: told after each attempt how much time is gone, and what the smallest case is
    """
    return _Shrinker(case, finding, judge, seconds, report).shrink()


class _OutOfTimeError(Exception):
    pass


class _Shrinker:
    def __init__(
        self,
        case: Case,
        finding: Finding,
        judge: Callable[[Case], Finding | None],
        seconds: float,
        report: Callable[[float, Case], None],
    ) -> None:
        self._case = case
        self._finding = finding
        self._judge = judge
        self._started = time.monotonic()
        self._seconds = seconds
        self._report = report
        self._attempts = 0

    def shrink(self) -> Shrunk:
        complete = True
        try:
            self._cut_end()
            self._cut_beginning()
            for _ in range(_MAX_ROUNDS):
                before = self._case
                self._fewer_steps()
                self._fewer_elements()
                self._simpler_steps()
                self._simpler_elements()
                if self._case == before:
                    break
        except _OutOfTimeError:
            complete = False
        elapsed = time.monotonic() - self._started
        return Shrunk(self._case, self._finding, self._attempts, elapsed, complete)

    def _try(self, case: Case) -> bool:
        """Take a case for the smallest one if it differs."""
        elapsed = time.monotonic() - self._started
        self._report(elapsed, self._case)
        if elapsed > self._seconds:
            raise _OutOfTimeError
        self._attempts += 1
        found = self._judge(case)
        if found is None:
            return False
        self._case, self._finding = case, found
        return True

    def _with_steps(self, steps: Sequence[Step]) -> Case:
        return replace(self._case, steps=tuple(steps))

    def _cut_end(self) -> None:
        """Leave out what comes behind the difference."""
        if self._finding.steps < len(self._case.steps):
            self._try(self._with_steps(self._case.steps[: self._finding.steps]))

    def _cut_beginning(self) -> None:
        """Keep the last steps only, as few as will do to a power of two: a history may have a hundred thousand."""
        count = 1
        while count < len(self._case.steps):
            if self._try(self._with_steps(self._case.steps[-count:])):
                return
            count *= 2

    def _fewer_steps(self) -> None:
        self._fewer(lambda: self._case.steps, self._with_steps, least=1)

    def _fewer_elements(self) -> None:
        if self._case.elements and self._try(replace(self._case, elements=())):
            return
        self._fewer(lambda: self._case.elements, lambda kept: replace(self._case, elements=tuple(kept)))

    def _fewer(
        self,
        current: Callable[[], Sequence[_T]],
        changed: Callable[[Sequence[_T]], Case],
        *,
        least: int = 0,
        finest: int = 1,
    ) -> None:
        """Leave out pieces of a sequence, from halves down to ``finest`` things, the last ones first."""
        size = max(1, len(current()) // 2)
        while True:
            end = len(current())
            while end > 0:
                start = max(0, end - size)
                kept = [*current()[:start], *current()[end:]]
                if len(kept) >= least:
                    self._try(changed(kept))
                end = start
            if size <= finest:
                return
            size //= 2

    def _simpler_steps(self) -> None:
        for index in reversed(range(len(self._case.steps))):
            step = self._case.steps[index]
            if isinstance(step, Frame):
                self._simpler_frame(index, step)
            else:
                self._simpler_change(index, step)

    def _put(self, index: int, step: Step) -> Case:
        steps = list(self._case.steps)
        steps[index] = step
        return self._with_steps(steps)

    def _simpler_frame(self, index: int, frame: Frame) -> None:
        def current() -> bytes:
            step = self._case.steps[index]
            return step.data if isinstance(step, Frame) else b""

        def changed(data: Sequence[int]) -> Case:
            step = self._case.steps[index]
            return self._put(index, replace(step, data=bytes(data)) if isinstance(step, Frame) else step)

        if frame.metadata:
            self._try(self._put(index, replace(frame, metadata=b"")))
        length = ETH_HLEN
        while length < len(current()) and not self._try(changed(current()[:length])):
            length *= 2
        self._fewer(current, changed, least=ETH_HLEN, finest=max(1, len(current()) // _FINEST_SHARE))
        self._zeros(current, changed)

    def _simpler_change(self, index: int, change: MapChange) -> None:
        def current() -> bytes:
            step = self._case.steps[index]
            return step.value or b"" if isinstance(step, MapChange) else b""

        def changed(data: Sequence[int]) -> Case:
            step = self._case.steps[index]
            return self._put(index, replace(step, value=bytes(data)) if isinstance(step, MapChange) else step)

        if change.flags:
            self._try(self._put(index, replace(change, flags=0)))
        if change.value is not None:
            self._zeros(current, changed)

    def _simpler_elements(self) -> None:
        for index in range(len(self._case.elements)):
            self._simpler_element(index)

    def _simpler_element(self, index: int) -> None:
        def changed(data: Sequence[int]) -> Case:
            elements = list(self._case.elements)
            elements[index] = replace(elements[index], value=bytes(data))
            return replace(self._case, elements=tuple(elements))

        self._zeros(lambda: self._case.elements[index].value, changed)

    def _zeros(self, current: Callable[[], bytes], changed: Callable[[Sequence[int]], Case]) -> None:
        """Make bytes zero, from all of them down to single ones."""
        size = max(1, len(current()))
        while True:
            for start in range(0, len(current()), size):
                data = current()
                end = min(start + size, len(data))
                if any(data[start:end]):
                    self._try(changed(data[:start] + bytes(end - start) + data[end:]))
            if size == 1:
                return
            size = (size + 1) // 2
