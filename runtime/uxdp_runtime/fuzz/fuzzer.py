"""Search for differences: inputs evolve towards new edges of the native code, and both sides take all of them.

Measured on this kind of machine, a run of a small program takes 15 us in the kernel, 4 us natively, and 40 us with all
that is compared (native code alone, in bursts, and with another clock). So there is no need to choose: whatever is run
to be explored is run on all sides, in the same order.

State goes along: what an input does depends on those before it, and that is where differences hide. After a while (an
epoch) the maps are compared, and both sides begin anew, with empty maps. Inputs that reached new edges are kept, for
all epochs. What happened in an epoch is remembered, so that a difference can be shown again from its beginning; one
that does not come again depends on the moment, and is counted.

Equal seeds make equal inputs in the same order, as long as the program does not depend on time or chance; how many
there are is a matter of time.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..compile.program import compile_to_explore
from ..differential import BURST_FRAMES, Differential, MapsCompared
from ..errors import ParameterError
from ..frames.constants import Steering
from ..frames.generate import Frame, generate
from ..frames.mutate import Dice
from ..map_file import Contents
from ..steps import Step
from ..stores import Stores
from .case import Case, elements_of, read_case, write_case
from .explorer import Explorer
from .journal import Journal
from .mutation import Mutator
from .trial import Finding, Trial, run_steps

Input = tuple[Step, ...]

# An epoch takes so many steps, and more where it takes long to load and compare maps.
_EPOCH_STEPS: Final = 20_000
_STEPS_PER_ENTRY: Final = 0.1
_LRUS: Final = frozenset({"lru_hash", "lru_percpu_hash"})
# Which element a full LRU map evicts is no promise, and the kernel's begins before it is full.
_LRU_SHARE: Final = 0.25
_CHECKED_EVERY: Final = 512
_FRESH_SHARE: Final = 0.15  # of the inputs: frames of the generator
_SOLVED_SHARE: Final = 0.02  # of them: one comparison is made to come out otherwise
_GENERATED: Final = 1 << 30
_RECENT: Final = 16
_TRIES: Final = 2
_MAX_UNREPEATED: Final = 5
_MAX_CORPUS: Final = 20_000


@dataclass(slots=True)
class FuzzResult:
    """What came of it. ``unrepeated`` counts differences that did not come again from fresh state.

    ``case`` is what led to the difference, from fresh state.
    """

    inputs: int = 0
    frames: int = 0
    changes: int = 0
    seconds: float = 0.0
    epochs: int = 0
    edges: int = 0
    edges_reached: int = 0
    corpus: int = 0
    left_out: int = 0
    targets_not_compared: Counter[str] = field(default_factory=Counter)
    maps: MapsCompared = field(default_factory=MapsCompared)
    unrepeated: int = 0
    finding: Finding | None = None
    case: Case | None = None


class Corpus:
    """The inputs that reached something new, in memory, and in a folder if there is one: a file for each."""

    def __init__(self, folder: Path | None, maps: Collection[str]) -> None:
        """Read the folder's inputs.

        :raises ParameterError: the folder or a file cannot be read, or is none of this program's
        """
        self.inputs: list[Input] = []
        self.given: list[Input] = []
        self._folder = folder
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths = sorted(folder.glob("*.json"))
        except OSError as cause:
            raise ParameterError(f"cannot be used: {cause.strerror or cause}", context=str(folder)) from cause
        self.given = [steps for path in paths if (steps := read_case(path, maps).steps)]
        self._number = len(paths)

    def add(self, steps: Input, *, is_new: bool = True) -> None:
        """Keep an input."""
        if len(self.inputs) < _MAX_CORPUS:
            self.inputs.append(steps)
            if self._folder is not None and is_new:
                while (path := self._folder / f"{self._number:06}.json").exists():
                    self._number += 1
                write_case(path, Case((), steps))


class Fuzzer:
    """Searches for a difference of one program."""

    def __init__(
        self,
        trial: Trial,
        contents: Contents,
        constants: Collection[int | bytes],
        *,
        seed: int,
        seeds: Sequence[Frame] = (),
        corpus: Path | None = None,
        journal: Journal | None = None,
        report: Callable[[FuzzResult], None] = lambda _result: None,
    ) -> None:
        """Prepare.

        :param contents: what the maps begin with, in every epoch
        :param constants: what steers frames and values
        :param seeds: frames to begin with, beside the generator's
        :param corpus: a folder that keeps inputs
        :param journal: is told all steps of an epoch before they are taken
        :param report: told now and then how far it is
        """
        self._trial = trial
        self._contents = contents
        self._constants = constants
        self._seed = seed
        self._folder = corpus
        self._journal = journal
        self._report = report
        self._result = FuzzResult()
        self._dice = Dice(seed)
        self._fresh = generate(_GENERATED, seed, constants)
        # Inputs to run next, and whether the corpus has them already.
        self._waiting: deque[tuple[Input, bool]] = deque(((frame,), False) for frame in seeds)
        self._seen = 0

    def run(self, seconds: float) -> FuzzResult:
        """Search for so long, or until there is a difference; what it takes to compile does not count."""
        result = self._result
        trial = self._trial
        with trial.verified() as verified:
            compiled = trial.compiled(verified)
            code = compile_to_explore(compiled, None, trial.cache_directory)
            maps = compiled.source.maps
            self._corpus = Corpus(self._folder, verified.maps.keys())
        self._waiting.extend((steps, True) for steps in self._corpus.given)
        self._mutator = Mutator(self._dice, Steering(self._constants), maps, self._contents)
        length = _EPOCH_STEPS + int(_STEPS_PER_ENTRY * sum(definition.max_entries for definition in maps))
        started = time.monotonic()
        self._end = started + seconds
        while result.finding is None and time.monotonic() < self._end:
            with trial.verified() as verified:
                compiled = trial.compiled(verified)
                cpu = min(os.sched_getaffinity(0))
                with (
                    Differential(compiled, trial.control) as sides,
                    Explorer(compiled, code, trial.control, cpu, self._seen) as explorer,
                ):
                    sides.fill(self._contents)
                    for name, items in self._contents.items():
                        for key, value in items:
                            explorer.stores.update(name, key, value)
                    found, history = self._epoch(sides, explorer, length, started)
                    result.left_out += sides.left_out
                    result.targets_not_compared += sides.targets_not_compared
                    result.maps = sides.maps
            self._seen = explorer.seen
            result.edges, result.edges_reached = explorer.num_edges, explorer.edges_reached
            result.corpus = len(self._corpus.inputs)
            result.epochs += 1
            if found is not None:
                self._judge(found, history)
            if result.unrepeated >= _MAX_UNREPEATED:
                break
        result.seconds = time.monotonic() - started
        return result

    def _epoch(
        self, sides: Differential, explorer: Explorer, length: int, started: float
    ) -> tuple[Finding | None, list[Step]]:
        """Run inputs until something differs, or the epoch ends; return the difference, and all steps."""
        result = self._result
        history: list[Step] = []
        compared = 0
        checked = 0
        frames = 0
        is_over = False
        if self._journal is not None:
            self._journal.clear()
        while not is_over:
            steps, is_known = self._next(explorer)
            if self._journal is not None:
                self._journal.add(steps)
            is_new = explorer.run(steps)
            if is_new:
                self._corpus.add(steps, is_new=not is_known)
            if is_new or (not self._waiting and self._dice.chance(_SOLVED_SHARE)):
                pairs = explorer.compared()
                if not is_new and pairs:
                    pairs = [self._dice.pick(pairs)]
                self._waiting.extend((tuple(made), False) for made in self._mutator.solve(steps, pairs))
            history += steps
            number = sum(isinstance(step, Frame) for step in steps)
            frames += number
            result.inputs += 1
            result.frames += number
            result.changes += len(steps) - number
            if len(history) - checked >= _CHECKED_EVERY:
                checked = len(history)
                is_over = len(history) >= length or _lru_fills(explorer.stores, len(history))
            if frames >= BURST_FRAMES or is_over:
                frames = 0
                found = run_steps(sides, history[compared:], finish=False)
                if found is not None:
                    return _behind(found, compared), history
                compared = len(history)
                now = time.monotonic()
                is_over |= now >= self._end
                result.seconds = now - started
                result.edges, result.edges_reached = explorer.num_edges, explorer.edges_reached
                result.corpus = len(self._corpus.inputs)
                self._report(result)
        found = run_steps(sides, history[compared:])
        return (None if found is None else _behind(found, compared)), history

    def _next(self, explorer: Explorer) -> tuple[Input, bool]:
        """Return the next input, and whether it is one of the corpus."""
        dice, inputs = self._dice, self._corpus.inputs
        if self._waiting:
            return self._waiting.popleft()
        if not inputs or dice.chance(_FRESH_SHARE):
            return (next(self._fresh),), False
        return tuple(self._mutator.mutate(self._pick(inputs), self._pick(inputs), explorer.stores)), False

    def _pick(self, inputs: list[Input]) -> Input:
        if self._dice.chance(0.5):
            return self._dice.pick(inputs[-_RECENT:])
        return self._dice.pick(inputs)

    def _judge(self, found: Finding, history: list[Step]) -> None:
        """Keep a difference that comes again from fresh state."""
        case = Case(elements_of(self._contents), tuple(history[: found.steps]))
        judge = self._trial.judge(found.kind)
        for _ in range(_TRIES):
            again = judge(case)
            if again is not None:
                self._result.finding, self._result.case = again, case
                return
        self._result.unrepeated += 1


def _behind(found: Finding, steps: int) -> Finding:
    return Finding(steps + found.steps, found.frame, found.change, found.maps)


def _lru_fills(stores: Stores, steps: int) -> bool:
    """Whether an LRU map may soon evict: a program seldom adds more than two elements for a frame."""
    for store in stores:
        limit = int(store.definition.max_entries * _LRU_SHARE)
        if store.definition.type in _LRUS and 2 * steps > limit:
            keys = store.keys() if store.is_readable else None
            if keys is None or sum(1 for _key in keys) > limit:
                return True
    return False
