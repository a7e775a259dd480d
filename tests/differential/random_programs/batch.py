"""Build an object of random programs, let the kernel's verifier judge each, and compare what they do on both sides.

All programs of an object are compiled once: frames enter a dispatcher, which goes on to one of them by a tail call.
They share the maps, whose content goes on from program to program; they are compared behind every program.
"""

import itertools
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.bound_bundles import bound_image
from uxdp_bundle.binding import BoundBundle
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import compile_program
from uxdp_runtime.differential import Differential, native_cpus
from uxdp_runtime.errors import VerifierError
from uxdp_runtime.frames.constants import constants_of
from uxdp_runtime.frames.generate import generate
from uxdp_runtime.outcomes import verdict_name
from uxdp_runtime.steps import MapChange
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import VerifiedObject, verify

from .declarations import DISPATCHER, PROGRAMS, SELECTED
from .source import Source, generate_source

_FIRST_KEY: Final = bytes(4)
_DEVICES: Final = {1: 1, 2: 2, 4: 3}
_CPU_QUEUE: Final = 192


class DifferenceError(AssertionError):
    """Kernel and native code differ on a random program."""


@dataclass
class Report:
    """What came of the programs of some objects: how many ran, which were refused and why, verdicts by name, and how
    many of those that ran have a statement of each kind.
    """

    programs: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    statements: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Report") -> None:
        """Add another report's numbers."""
        self.programs += other.programs
        self.refused |= other.refused
        self.verdicts += other.verdicts
        self.left_out += other.left_out
        self.statements += other.statements

    @property
    def refusal_rate(self) -> float:
        """How many of the programs that were generated the verifier refused."""
        return len(self.refused) / max(1, self.programs + len(self.refused))


def compare_object(
    seed: int,
    number: int,
    *,
    num_programs: int,
    frames: int,
    target: Target,
    control: ControlLibrary,
    only: str | None = None,
) -> Report:
    """Generate one object and run each of its programs on ``frames`` frames on both sides.

    :param only: the program to run, if not all of them
    :raises DifferenceError: with the program, and the command that shows it again
    """
    source = generate_source(seed, number, num_programs)
    report = Report()
    with built(source, f"random-{seed}-{number}") as bound:
        accepted, verified = _verified(bound, [only] if only else list(source.programs), report, f"{seed}/{number}/")
        with verified:
            compiled = compile_program(verified, DISPATCHER, target, num_cpus=native_cpus(), cache_directory=None)
            constants = constants_of(bytes(bound.authentic.bundle.object))
            with Differential(compiled, control) as sides:
                names = list(source.programs)
                sides.link(PROGRAMS, {names.index(name): name for name in accepted})
                if source.options.redirects:
                    sides.fill(
                        {
                            "devices": [(struct.pack("=I", key), struct.pack("=I", v)) for key, v in _DEVICES.items()],
                            "cpus": [(_FIRST_KEY, struct.pack("=I", _CPU_QUEUE))],
                        }
                    )
                for name in accepted:
                    index = names.index(name)
                    refused = sides.change(MapChange(SELECTED, _FIRST_KEY, struct.pack("=I", index)))
                    assert refused is None, refused
                    for frame, outcome, difference in sides.run(generate(frames, seed * 1000 + index, constants)):
                        if difference is not None:
                            raise _error(seed, number, num_programs, source, name, difference)
                        assert frame.data
                        report.verdicts[verdict_name(outcome.verdict)] += 1
                    found = list(itertools.islice(sides.map_differences(), 3))
                    if found:
                        raise _error(seed, number, num_programs, source, name, found)
                report.left_out += sides.left_out
            report.programs += len(accepted)
            report.statements.update(kind for name in accepted for kind in source.statements[name])
    return report


@contextmanager
def built(source: Source, name: str) -> Iterator[BoundBundle]:
    """Build the source and bind it."""
    with TemporaryDirectory(prefix="uxdp-random-") as folder:
        path = Path(folder, f"{name}.c")
        path.write_text(source.text)
        arguments = (source.options.optimisation, f"-mcpu={source.options.cpu}", "-fwrapv", "-w")
        image = build(BuildRequest(sources=(path.name,), cwd=path.parent, clang_args=arguments)).bundle
    with bound_image(image, path=path.name) as bound:
        yield bound


def _verified(bound: BoundBundle, wanted: list[str], report: Report, prefix: str) -> tuple[list[str], VerifiedObject]:
    """Load the programs that the verifier accepts; note those that it refuses."""
    accepted = list(wanted)
    while True:
        try:
            return accepted, verify(bound, programs=[DISPATCHER, *accepted])
        except VerifierError as refused:
            if refused.program not in accepted:
                raise
            report.refused[prefix + refused.program] = f"{refused}"
            accepted.remove(refused.program)


def _error(seed: int, number: int, num_programs: int, source: Source, name: str, difference: object) -> DifferenceError:
    command = (
        "python -m tests.differential.random_programs "
        f"--seed {seed} --object {number} --programs {num_programs} --only {name}"
    )
    return DifferenceError(
        f"program {name} of object {number}, seed {seed}: {difference}\n\n{source.programs[name]}\n"
        f"clang {source.options.optimisation} -mcpu={source.options.cpu}\n"
        f"again, alone: {command}\nwith all that ran before: {command.partition(' --only')[0]}\n"
        f"its whole source: {command} --print"
    )
