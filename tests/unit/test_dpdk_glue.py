"""The DPDK port's C is compiled once for what is installed; what is missing is said, with Debian's packages."""

from pathlib import Path

import pytest

from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_runtime.compile.dpdk_glue import dpdk_glue

PKG_CONFIG = """#!/bin/sh
case "$1" in
--modversion) echo {version};;
*) echo "-I/usr/include/dpdk -march=corei7 -lrte_eal";;
esac
"""
NO_HEADERS = "#!/bin/sh\necho none >&2; exit 1\n"
# A compiler that counts how often it ran, and refuses sources if it is told to.
COMPILER = """#!/bin/sh
case "$1" in --version) echo "cc (test) {version}"; exit 0;; esac
echo "$@" >> {folder}/runs
test -e {folder}/refuse && {{ echo "dpdk.c:1: error: no such header" >&2; exit 1; }}
while test "$1" != -o; do shift; done
echo code > "$2"
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "cache").mkdir(mode=0o700)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("CC", "dpdk-test-cc")
    write(folder / "pkg-config", PKG_CONFIG.format(version="22.11.9"))
    write(folder / "dpdk-test-cc", COMPILER.format(version="1", folder=tmp_path))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def runs(tools: Path) -> int:
    path = tools / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_glue_is_compiled_once_for_a_dpdk_and_a_compiler(tools: Path) -> None:
    cache = tools / "cache"
    assert dpdk_glue(cache) == (b"code\n", "22.11.9")
    assert dpdk_glue(cache) == (b"code\n", "22.11.9")
    assert runs(tools) == 1
    write(tools / "bin/pkg-config", PKG_CONFIG.format(version="24.11.1"))
    assert dpdk_glue(cache) == (b"code\n", "24.11.1")
    assert runs(tools) == 2
    write(tools / "bin/dpdk-test-cc", COMPILER.format(version="2", folder=tools))
    assert dpdk_glue(cache) == (b"code\n", "24.11.1")
    assert runs(tools) == 3
    assert dpdk_glue(None) == (b"code\n", "24.11.1")
    assert runs(tools) == 4


def test_cpu_is_this_one_not_the_one_that_pkg_config_names(tools: Path) -> None:
    dpdk_glue(None)
    (command,) = (tools / "runs").read_text().splitlines()
    assert "-march=native" in command
    assert "corei7" not in command


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda tools, patch: patch.setenv("PATH", str(tools)), "pkg-config is not installed"),
        (
            lambda tools, patch: write(tools / "bin/pkg-config", "#!/bin/sh\necho none >&2; exit 1\n"),
            "headers are not installed: none",
        ),
        (lambda tools, patch: patch.setenv("CC", "no-such-compiler"), "looked for no-such-compiler"),
        (lambda tools, patch: (tools / "refuse").touch(), "does not compile the port: dpdk.c:1: error: no such header"),
    ],
    ids=["pkg-config", "headers", "compiler", "sources"],
)
def test_what_is_missing_comes_with_debians_packages(tools, monkeypatch, break_it, said: str) -> None:
    break_it(tools, monkeypatch)
    with pytest.raises(UnsupportedFeatureError) as caught:
        dpdk_glue(tools / "cache")
    assert said in str(caught.value)
    assert "apt-get install gcc pkg-config libdpdk-dev dpdk" in (caught.value.remedy or "")
    assert not list((tools / "cache").iterdir())
