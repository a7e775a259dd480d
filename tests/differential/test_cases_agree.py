"""One program per map type, helper and language feature, errors included, against the kernel."""

from pathlib import Path

import pytest

from tests.differential.agreement import assert_agreement
from tests.differential.case_settings import SETTINGS
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
FRAMES = 1000


@pytest.mark.parametrize("source", sorted(CASES.glob("*.c")), ids=lambda path: path.stem)
def test_case_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, source: Path
) -> None:
    settings = SETTINGS.get(source.stem, ())
    verdicts = assert_agreement(source, target, control, cache, frames=FRAMES, seed=11, settings=settings)
    assert verdicts.total() >= FRAMES


def test_settings_belong_to_cases() -> None:
    assert SETTINGS.keys() <= {source.stem for source in CASES.glob("*.c")}
