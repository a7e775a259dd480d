"""What ``uxdp test`` does besides comparing frames one after the other: run a saved case, fuzz, shrink a difference."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ..frames.generate import Frame
from ..fuzz.case import Case, elements_of
from ..fuzz.child import CrashError, in_child
from ..fuzz.fuzzer import Fuzzer, FuzzResult
from ..fuzz.journal import Journal
from ..fuzz.trial import Finding, Trial
from ..map_file import Contents
from . import output
from .shrinking import shrink_difference
from .test_report import Report


def run_case(trial: Trial, case: Case, contents: Contents) -> Report:
    """Run a case that was saved, with other elements in front of its own."""
    whole = Case((*elements_of(contents), *case.elements), case.steps)
    finding = trial.run_apart(whole)
    return Report(
        trial.program,
        trial.origin,
        frames=len(whole.frames),
        finding=finding,
        maps=trial.maps,
        case=whole,
    )


def fuzz_program(
    trial: Trial,
    contents: Contents,
    constants: Collection[int | bytes],
    *,
    seconds: float,
    seed: int,
    seeds: Sequence[Frame],
    corpus: str | None,
    progress: bool,
) -> Report:
    """Search for a difference of one program, in a child process: native code that crashes differs, too.

    :param seeds: frames to begin with
    :param corpus: a folder; each program has one of its own in it
    """
    folder = None if corpus is None else Path(corpus, trial.program)
    with Journal() as journal, output.time_bar(f"fuzz {trial.program}", seconds, wanted=progress) as show:

        def tell(now: FuzzResult) -> None:
            show(now.seconds, f"{now.frames} frames, {now.edges_reached} of {now.edges} edges")

        fuzzer = Fuzzer(trial, contents, constants, seed=seed, seeds=seeds, corpus=folder, journal=journal, report=tell)
        try:
            result, trial.origin = in_child(lambda: (fuzzer.run(seconds), trial.origin))
        except CrashError as crash:
            case = Case(elements_of(contents), journal.read())
            if not case.steps:
                raise
            finding = Finding(len(case.steps), crash=crash.signal)
            return Report(trial.program, trial.origin, frames=len(case.frames), finding=finding, case=case)
    return Report(
        trial.program,
        trial.origin,
        frames=result.frames,
        finding=result.finding,
        left_out=result.left_out,
        targets_not_compared=result.targets_not_compared,
        maps=result.maps,
        fuzz=result,
        case=result.case,
    )


def shrink_report(report: Report, trial: Trial, *, seconds: float, progress: bool) -> None:
    """Shrink the difference of a report."""
    report.wanted_shrunk = True
    if report.case is not None and report.finding is not None:
        report.shrunk = shrink_difference(trial, report.case, report.finding, seconds=seconds, progress=progress)
