"""``make CLANG=uxdp-cc`` in a project that knows nothing of uxdp: bundles, which its own libbpf loader still loads."""

import shutil
from pathlib import Path

import pytest

from tests.privileged.cc_on_path import environment, in_network_namespace, run
from uxdp_bundle.container import open_bundle

pytestmark = pytest.mark.kernel

PROJECT = Path(__file__).parent / "dropin_project"
LOADED = """\
count: 100 bytes, verdict 2
count: 101 bytes, verdict 1
count: 2 frames
count: attached
ports, open: 42 bytes, verdict 2
ports, closed: 42 bytes, verdict 1
ports: 1 hits
ports: attached
"""


@pytest.fixture
def project(kernel: None, tmp_path: Path) -> Path:
    """A fresh copy of the project."""
    return Path(shutil.copytree(PROJECT, tmp_path / "project"))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home")


def load(project: Path, env: dict[str, str]) -> str:
    return in_network_namespace("build/loader build/ports.o v0", project, env)


@pytest.mark.parametrize("clang", ["uxdp-cc", "clang-14"])
def test_project_as_it_is_builds_and_its_loader_loads_the_objects(
    project: Path, env: dict[str, str], clang: str
) -> None:
    if shutil.which(clang, path=env["PATH"]) is None:
        pytest.skip(f"{clang} is not installed, beside which uxdp-cc is shown: apt-get install {clang}")
    run(f"make CLANG={clang}", project, env)
    assert load(project, env) == LOADED


def test_objects_are_bundles_that_bind(project: Path, env: dict[str, str]) -> None:
    run("make -j2 CLANG=uxdp-cc BUILD=out", project, env)
    for name in ("count", "ports"):
        assert f"out/{name}.o: bound (equal)" in run(f"uxdp bind out/{name}.o", project, env)
        with open_bundle(project / f"out/{name}.o") as bundle:
            assert bundle.manifest.name == name
            shared = "parse" if name == "ports" else "shared"
            assert [file.path for file in bundle.manifest.build.sources] == [f"headers/{shared}.h", f"src/{name}.c"]


def test_rules_that_were_written_rebuild_what_changed(project: Path, env: dict[str, str]) -> None:
    run("make CLANG=uxdp-cc", project, env)
    assert run("make CLANG=uxdp-cc", project, env) == "make: Nothing to be done for 'all'.\n"
    before = (project / "build/ports.o").read_bytes()
    header = project / "headers/parse.h"
    header.write_text(header.read_text().replace("ip->ihl != 5", "ip->ihl != 6"))
    said = run("make CLANG=uxdp-cc", project, env)
    assert "src/ports.c" in said
    assert "src/count.c" not in said
    assert (project / "build/ports.o").read_bytes() != before


def test_source_that_fails_stops_make_with_clangs_message(project: Path, env: dict[str, str]) -> None:
    source = project / "src/ports.c"
    source.write_text(source.read_text().replace("return XDP_DROP;", "return XDP_DORP;"))
    said = run("make CLANG=uxdp-cc build/ports.o", project, env, status=2)
    assert "src/ports.c:23:9: error: use of undeclared identifier 'XDP_DORP'; did you mean 'XDP_DROP'?" in said
    assert "ports.o] Error 1" in said
    assert not (project / "build/ports.o").exists()


@pytest.mark.parametrize("tool", ["llvm-strip", "bpftool gen object"])
def test_tools_that_rewrite_objects_leave_plain_objects(project: Path, env: dict[str, str], tool: str) -> None:
    """What they drop is everything that uxdp reads: such a file is no bundle, and still loads."""
    if shutil.which(tool.partition(" ")[0]) is None:
        pytest.skip(f"{tool} is not installed: apt-get install llvm")
    run("make CLANG=uxdp-cc", project, env)
    command = "llvm-strip -g build/ports.o -o plain.o" if tool == "llvm-strip" else f"{tool} plain.o build/ports.o"
    run(command, project, env)
    assert "error: " in run("uxdp inspect plain.o", project, env, status=3)
    assert "ports: 1 hits" in in_network_namespace("build/loader plain.o v0", project, env)
