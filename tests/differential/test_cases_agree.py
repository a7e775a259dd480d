"""One program per map type, helper and language feature, errors included, against the kernel."""

import os
import shutil
from pathlib import Path

import pytest

from tests.differential.agreement import assert_agreement
from tests.differential.case_settings import CLANG_ARGS, SETTINGS
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

CASES = Path(__file__).parents[1] / "cases" / "native"
FRAMES = 1000


@pytest.mark.parametrize("source", sorted(CASES.glob("*.c")), ids=lambda path: path.stem)
def test_case_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, source: Path
) -> None:
    verdicts = assert_agreement(
        source,
        target,
        control,
        cache,
        frames=FRAMES,
        seed=11,
        settings=SETTINGS.get(source.stem, ()),
        clang_args=CLANG_ARGS.get(source.stem, ()),
    )
    assert verdicts.total() >= FRAMES


# Debian 12's, whose IR names types where newer ones count bytes, and passes pointers through casts.
OLDER_CLANG = "clang-14"


@pytest.mark.parametrize(
    "name",
    [
        *("core_answers", "global_subprograms", "loop_nested", "loops", "metadata", "options"),
        *("pointers", "spilled", "tail_call_subprogram", "trace"),
    ],
)
def test_case_by_an_older_clang_agrees_with_the_kernel(
    kernel: None, target: Target, control: ControlLibrary, cache: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(OLDER_CLANG) is None:
        reason = f"{OLDER_CLANG} is not installed: apt-get install {OLDER_CLANG}"
        if "kernel" in os.environ.get("UXDP_REQUIRE", "").split(","):
            pytest.fail(f"UXDP_REQUIRE=kernel: {reason}")
        pytest.skip(reason)
    monkeypatch.setenv("UXDP_CLANG", OLDER_CLANG)
    assert_agreement(CASES / f"{name}.c", target, control, cache, frames=FRAMES, seed=11)


def test_settings_belong_to_cases() -> None:
    assert SETTINGS.keys() | CLANG_ARGS.keys() <= {source.stem for source in CASES.glob("*.c")}
