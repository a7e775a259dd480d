"""Redirects go natively where the kernel sends them, with maps whose devices need not be there."""

from pathlib import Path

import pytest

from tests.differential.agreement import assert_agreement
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
DEVICES = (
    "ports:0=1",
    "ports:2=501",
    "ports:3=502",
    'links:1={"ifindex": 503}',
    'links:4={"ifindex": 501}',
    "cpus:0=64",
)


@pytest.mark.parametrize("settings", [(), DEVICES], ids=["empty", "filled"])
def test_redirect_targets_agree_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, settings: tuple[str, ...]
) -> None:
    source = CASES / "redirect_targets.c"
    verdicts = assert_agreement(source, target, control, cache, frames=1000, seed=4, settings=settings)
    assert verdicts["REDIRECT"] > (1000 if settings else 500)
