"""Run a case from fresh state on both sides: what the verdict on it is, again and again."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Final

from uxdp_bundle.binding import BoundBundle

from ..compile.program import CompiledProgram, compile_program
from ..differential import ChangeDifference, Differential, FrameDifference, MapsCompared, native_cpus
from ..errors import BpfError, ParameterError
from ..frames.generate import Frame
from ..outcomes import MapDifference
from ..steps import MapChange, Step
from ..stores import ControlLibrary, MapOperationError
from ..verify import VerifiedObject, verify
from .case import Case
from .child import CrashError, in_child

MAX_MAP_DIFFERENCES: Final = 10
_CRASH: Final = "end by "


@dataclass(frozen=True, slots=True)
class Finding:
    """The first difference of a case: of a frame, of the answer to a change of a map, or in the end of maps; or the
    signal that native code ended its process by, in whichever of the steps.

    ``steps``: how many of the case's steps it took.
    """

    steps: int
    frame: FrameDifference | None = None
    change: ChangeDifference | None = None
    maps: tuple[MapDifference, ...] = ()
    crash: Signals | None = None

    @property
    def kind(self) -> str:
        """What differs, in words that are equal for equal causes as far as one can tell."""
        if self.crash is not None:
            return f"{_CRASH}{self.crash.name}"
        if self.frame is not None:
            return self.frame.what + (" in bursts" if self.frame.in_bursts else "")
        if self.change is not None:
            return f"answer to a change of map {self.change.change.map}"
        return f"map {self.maps[0].map}" + (" in bursts" if self.maps[0].in_bursts else "")


def run_steps(sides: Differential, steps: Sequence[Step], *, finish: bool = True) -> Finding | None:
    """Take the steps on both sides; return the first difference.

    :param finish: compare the maps afterwards
    """
    done = 0
    while done < len(steps):
        step = steps[done]
        if isinstance(step, MapChange):
            answer = sides.change(step)
            done += 1
            if answer is not None:
                return Finding(done, change=answer)
            continue
        end = done
        while end < len(steps) and isinstance(steps[end], Frame):
            end += 1
        frames = [step for step in steps[done:end] if isinstance(step, Frame)]
        for number, (_frame, _outcome, difference) in enumerate(sides.run(frames)):
            if difference is not None:
                return Finding(done + number + 1, frame=difference)
        done = end
    if not finish:
        return None
    maps = tuple(islice(sides.map_differences(), MAX_MAP_DIFFERENCES))
    return Finding(done, maps=maps) if maps else None


class Trial:
    """One program of a bundle that can be run from fresh state, with the same constants, as often as one likes."""

    def __init__(
        self,
        bound: BoundBundle,
        program: str,
        *,
        programs: Collection[str],
        params: Mapping[str, int | bytes],
        control: ControlLibrary,
        cache_directory: Path | None,
    ) -> None:
        """Remember what to load; see ``verify``.

        :param programs: those to load
        """
        self.program = program
        self.origin = ""  # of the code that was compiled last
        self.maps = MapsCompared()  # of the case that was run last
        self.control = control
        self.cache_directory = cache_directory
        self._bound = bound
        self._programs = programs
        self._params = params

    def verified(self) -> AbstractContextManager[VerifiedObject]:
        """Load the object into the kernel, with empty maps."""
        return verify(self._bound, programs=self._programs, params=self._params)

    def compiled(self, verified: VerifiedObject) -> CompiledProgram:
        """Compile the program of a loaded object, as it is compiled to be served."""
        compiled = compile_program(
            verified, self.program, None, num_cpus=native_cpus(), cache_directory=self.cache_directory
        )
        self.origin = compiled.origin.value
        return compiled

    def run(self, case: Case) -> Finding | None:
        """Run a case from fresh state; return the first difference."""
        with self.verified() as verified, Differential(self.compiled(verified), self.control) as sides:
            sides.fill(case.contents)
            finding = run_steps(sides, case.steps)
            self.maps = sides.maps
        return finding

    def run_apart(self, case: Case) -> Finding | None:
        """Run a case in a child process, where native code that crashes ends nothing else."""
        try:
            finding, self.origin, self.maps = in_child(lambda: (self.run(case), self.origin, self.maps))
        except CrashError as crash:
            return Finding(len(case.steps), crash=crash.signal)
        return finding

    def judge(self, kind: str) -> Callable[[Case], Finding | None]:
        """Return what tells of a case whether it still differs in the same: no, if it cannot be run."""

        run = self.run_apart if kind.startswith(_CRASH) else self.run

        def judged(case: Case) -> Finding | None:
            try:
                found = run(case)
            except (BpfError, ParameterError, MapOperationError):
                return None
            return found if found is not None and found.kind == kind else None

        return judged
