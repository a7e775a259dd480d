"""A program of 5,000 instructions, whose operations on maps are functions of their own, against the kernel."""

from pathlib import Path

import pytest

from tests.differential.agreement import assert_agreement
from tests.large_program import large_program
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

FRAMES = 500


def test_large_program_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, tmp_path: Path
) -> None:
    source = tmp_path / "large.c"
    source.write_text(large_program(5000))
    verdicts = assert_agreement(source, target, control, cache, frames=FRAMES, seed=3)
    assert verdicts.total() == FRAMES
    assert len(verdicts) > 1
