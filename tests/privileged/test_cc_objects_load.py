"""Bundles by uxdp-cc load as they are: with bpftool and with ip, whichever clang made the IR."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.privileged.cc_on_path import environment, in_network_namespace, run
from tests.unit.cc_fixtures import CALLEE, CALLER, DROP, clang_line

pytestmark = pytest.mark.kernel

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/*.c"))
# clang-14 is Debian 12's, and must be there where the kernel must be; the others are tested where they are.
CLANGS = ["ziglang", "clang-14", *(name for name in ("clang-16", "clang-19") if shutil.which(name))]


@pytest.fixture(params=CLANGS)
def clang(request: pytest.FixtureRequest, kernel: None) -> str:
    """Each clang in turn."""
    name = str(request.param)
    if name != "ziglang" and shutil.which(name) is None:
        reason = f"{name} is not installed: apt-get install {name}"
        if "kernel" in os.environ.get("UXDP_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return name


@pytest.fixture
def env(tmp_path: Path, kernel: None) -> dict[str, str]:
    return environment(tmp_path / "home")


def tag(pin: Path, folder: Path, env: dict[str, str]) -> str:
    """Return the kernel's digest of a program's instructions."""
    return str(json.loads(run(f"bpftool --json prog show pinned {pin}", folder, env))["tag"])


def translated_bytes(pin: Path, folder: Path, env: dict[str, str]) -> int:
    """Return the size of a program's instructions in the kernel."""
    return int(json.loads(run(f"bpftool --json prog show pinned {pin}", folder, env))["bytes_xlated"])


@pytest.mark.parametrize("name", NAMES)
def test_example_builds_binds_and_loads(
    clang: str, name: str, bpffs: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    if clang != "ziglang":
        env["UXDP_CLANG"] = clang
    source = EXAMPLES / name / f"{name}.c"
    run(f"uxdp-cc -Wall -Wextra -Werror -c {source}", tmp_path, env)
    assert f"{name}.uxdp: bound (equal)" in run(f"uxdp bind {name}.uxdp", tmp_path, env)
    run(f"bpftool prog load {name}.uxdp {bpffs}/program type xdp pinmaps {bpffs}/maps", tmp_path, env)
    shown = in_network_namespace(
        f"ip link set dev v0 xdp obj {name}.uxdp sec xdp; ip -json link show v0; ip link set dev v0 xdp off",
        tmp_path,
        env,
    )
    assert json.loads(shown)[0]["xdp"]["prog"]["tag"] == tag(bpffs / "program", tmp_path, env)


@pytest.mark.parametrize("name", NAMES)
def test_example_is_as_short_as_what_clang_makes(name: str, bpffs: Path, tmp_path: Path, env: dict[str, str]) -> None:
    """The bundle's object is made of IR that promises nothing, and clang's of IR that may; that costs little."""
    source = EXAMPLES / name / f"{name}.c"
    run(f"uxdp-cc -c {source}", tmp_path, env)
    run(f"{' '.join(clang_line())} -c {source} -o plain.o", tmp_path, env)
    for file, pin in ((f"{name}.uxdp", "bundle"), ("plain.o", "plain")):
        run(f"bpftool prog load {file} {bpffs}/{pin} type xdp", tmp_path, env)
    bundle, plain = (translated_bytes(bpffs / pin, tmp_path, env) for pin in ("bundle", "plain"))
    assert 0.9 * plain < bundle < 1.1 * plain


@pytest.mark.parametrize(
    "line",
    [
        "-mcpu=v1",
        "-mcpu=v2",
        "-mcpu=v4",
        "-O1",
        "-O3",
        "-Os",
        "-g0",
        "-gdwarf-4",
        "-mcpu=v2 -Xclang -target-feature -Xclang +alu32",
    ],
)
def test_bundle_loads_whatever_the_flags(line: str, bpffs: Path, tmp_path: Path, env: dict[str, str]) -> None:
    run(f"uxdp-cc {line} -c {EXAMPLES}/l2_swap/l2_swap.c -o x.o", tmp_path, env)
    run("uxdp bind x.o", tmp_path, env)
    run(f"bpftool prog load x.o {bpffs}/program type xdp", tmp_path, env)


def test_bundle_of_several_sources_loads(bpffs: Path, tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "a.c").write_text(CALLER)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.c").write_text(CALLEE)
    run("uxdp-cc a.c sub/b.c -o nf.uxdp", tmp_path, env)
    run(f"bpftool prog load nf.uxdp {bpffs}/program type xdp", tmp_path, env)
    in_network_namespace("ip link set dev v0 xdp obj nf.uxdp sec xdp", tmp_path, env)


def test_bundle_without_ir_loads(bpffs: Path, tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "nf.c").write_text(
        DROP.replace(
            "return ctx->data <",
            # What one assembly leaves in a register for the next, IR cannot say.
            'asm volatile("r8 = 1" ::: "r8");\n\tasm volatile("r9 = r8" ::: "r9");\n\treturn ctx->data <',
        )
    )
    assert "carries no IR" in run("uxdp-cc -c nf.c", tmp_path, env)
    assert "nf.uxdp: bound (no-ir)" in run("uxdp bind nf.uxdp", tmp_path, env)
    run(f"bpftool prog load nf.uxdp {bpffs}/program type xdp", tmp_path, env)
