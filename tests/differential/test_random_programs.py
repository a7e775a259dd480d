"""Random programs that the verifier accepts do natively what they do in the kernel; see random_programs."""

import os

import pytest

from tests.differential.random_programs.batch import DifferenceError, Report, compare_object
from tests.differential.random_programs.source import generate_source, kinds_of_statements
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.differential import Differential
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

SEED = 1
PROGRAMS = 27  # of an object
FRAMES = 32
# In parts, so that all CPUs take part; together more than 500 programs, under `make soak` thousands.
PARTS = 4
PROGRAMS_OF_PART = 2500 if os.environ.get("UXDP_LONG") else 126
MOST_REFUSED = 0.25


@pytest.mark.parametrize("part", range(PARTS))
def test_random_programs_agree_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, part: int
) -> None:
    report = Report()
    for number in range(part, 100 * PROGRAMS_OF_PART, PARTS):
        report.add(compare_object(SEED, number, num_programs=PROGRAMS, frames=FRAMES, target=target, control=control))
        if report.programs >= PROGRAMS_OF_PART:
            break
        assert report.refusal_rate <= MOST_REFUSED, report.refused
    print(f"{report.programs} programs, {report.refusal_rate:.1%} more refused by the verifier: {report.verdicts}")
    assert report.verdicts.total() == report.programs * FRAMES
    assert report.verdicts.keys() >= {"ABORTED", "DROP", "PASS", "TX", "REDIRECT"}
    # Everything that the generator can write is in programs that ran.
    assert report.statements.keys() == kinds_of_statements()
    assert report.left_out == 0  # nothing here depends on time or chance


def test_random_programs_of_a_seed_are_the_same() -> None:
    assert generate_source(3, 1, 4) == generate_source(3, 1, 4)
    assert generate_source(3, 1, 2).programs.items() <= generate_source(3, 1, 4).programs.items()
    assert generate_source(3, 1, 2) != generate_source(3, 2, 2)


def test_random_program_that_differs_is_shown_with_the_command_for_it(
    kernel: None, target: Target, control: ControlLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The native side has another program in the place of the one that is tested.
    link = Differential.link

    def link_wrongly(sides: Differential, name: str, programs: dict[int, str]) -> None:
        link(sides, name, programs)
        first, *_others, last = sorted(programs)
        for side in sides._sides:
            side.link(name, first.to_bytes(4, "little"), programs[last])

    monkeypatch.setattr(Differential, "link", link_wrongly)
    with pytest.raises(DifferenceError) as raised:
        compare_object(SEED, 0, num_programs=6, frames=FRAMES, target=target, control=control)
    text = str(raised.value)
    assert 'SEC("xdp") int p0(struct xdp_md *ctx)' in text
    assert f"tests.differential.random_programs --seed {SEED} --object 0 --programs 6 --only p0" in text
