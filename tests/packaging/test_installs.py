"""Real pip in real environments: what a user does with a project that uses the hatch plugin.

One environment has the wheel of uxdp and sees the dependencies of the environment that runs the tests, so that nothing
is downloaded. Every flow must leave it as it found it. One test does without these shortcuts: the one with ``slow`` in
its name, which builds in isolation, as pip does by default.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = "l2_swap"
TIMEOUT_S = 300

PACKAGE = """\
[build-system]
requires = ["hatchling", "uxdp"]
build-backend = "hatchling.build"

[project]
name = "counting-tools"
version = "2.0"
requires-python = ">=3.11"

[tool.hatch.build.targets.wheel]
packages = ["src/counting"]

[tool.hatch.build.targets.wheel.hooks.uxdp]
sources = ["src/**/*.c", "extra/drop.c"]
include-dirs = ["include"]
defines = { VERDICT = 2 }
"""
SOURCE = """\
#include <linux/bpf.h>
#include <verdict.h>

__attribute__((section("xdp"), used)) int nf(struct xdp_md *ctx)
{
    return verdict();
}

char _license[] __attribute__((section("license"), used)) = "Dual MIT/GPL";
"""
HEADER = "static inline int verdict(void)\n{\n    return VERDICT;\n}\n"


class Environment:
    """A virtual environment, and the user who works in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        foreign = ("UXDP_", "PYTHON", "XDG_", "SUDO_")
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        self.variables.update(
            HOME=str(folder / "home"), UXDP_SYSTEM_CONFIG=str(folder / "etc"), UXDP_STATE_DIR=str(folder / "state")
        )
        (folder / "home").mkdir(parents=True)
        # pip's cache is not the user's under test: a download that was made once is not made again.
        cache = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache/pip")
        self.variables.update(PIP_CACHE_DIR=cache, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_COLOR="1")
        self.python = folder / "venv/bin/python"
        self.run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        self.site = Path(self.run(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())

    def run(self, *command, cwd=None, fails=False):
        result = subprocess.run(
            [str(word) for word in command],
            cwd=cwd or self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if fails else subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (result.returncode != 0) == fails, f"{command}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def pip(self, *arguments, fails=False):
        return self.run(sys.executable, "-m", "pip", "--python", self.python, *arguments, fails=fails)

    def install(self, *arguments, fails=False):
        return self.pip(
            "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", *arguments, fails=fails
        )

    def uxdp(self, *arguments):
        return self.run(self.folder / "venv/bin/uxdp", *arguments)

    def listed(self):
        document = json.loads(self.uxdp("list", "--json"))
        assert document["errors"] == []
        return {function["name"]: function for function in document["functions"]}

    def snapshot(self):
        """Every path in the environment but the interpreter's own byte code."""
        paths = (self.folder / "venv").rglob("*")
        return sorted(str(path) for path in paths if "__pycache__" not in path.parts)


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """A folder with the wheel of uxdp."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT_S)
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory, dist):
    """An environment with uxdp in it, and its dependencies within reach."""
    folder = tmp_path_factory.mktemp("environment")
    environment = Environment(folder)
    # Links to everything that the tests' own environment has, but for uxdp itself and pip.
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix != ".pth" and not path.name.lower().startswith(("uxdp", "pip", "__pycache__")):
            (dependencies / path.name).symlink_to(path)
    (environment.site / "dependencies.pth").write_text(f"{dependencies}\n")
    environment.install(*dist.glob("uxdp-*.whl"))
    return environment


@pytest.fixture
def clean(environment):
    """The environment, which must be found again as it was."""
    before = environment.snapshot()
    yield environment
    assert environment.snapshot() == before


@pytest.fixture
def example(tmp_path):
    """A copy of an example's folder: what stands in a user's checkout."""
    folder = tmp_path / EXAMPLE
    shutil.copytree(ROOT / "examples" / EXAMPLE, folder, ignore=shutil.ignore_patterns("*.uxdp", "dist"))
    return folder


@pytest.fixture
def package(tmp_path):
    """A project with a Python package, a source inside of it and one outside."""
    folder = tmp_path / "counting-tools"
    for path, text in {
        "pyproject.toml": PACKAGE,
        "src/counting/__init__.py": "",
        "src/counting/bpf/count.c": SOURCE,
        "extra/drop.c": SOURCE,
        "include/verdict.h": HEADER,
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def build(environment, project, what, out):
    """Build without isolation; return the one file of that kind."""
    environment.run(environment.python, "-m", "build", "--no-isolation", f"--{what}", "--outdir", out, project)
    (path,) = out.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return path


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("origin", ["directory", "sdist", "wheel"])
def test_pip_install_of_an_example_is_listed_authentic_and_uninstalled_without_rest(clean, example, tmp_path, origin):
    before = files_below(example)
    what = example if origin == "directory" else build(clean, example, origin, tmp_path / "out")
    clean.install(what)
    assert files_below(example) == before, "a build leaves the tree as it is"
    function = clean.listed()[EXAMPLE]
    assert function["state"] == "installed"
    assert Path(function["path"]).is_relative_to(clean.site)
    assert sha256(Path(function["path"]).read_bytes()).hexdigest() == function["sha256"]
    assert function["distribution"] == "uxdp-l2-swap"
    # Signed with this user's development key, which this user trusts.
    assert function["bundle_id"] in clean.uxdp("authenticate", function["path"])
    clean.pip("uninstall", "--quiet", "--yes", "uxdp-l2-swap")
    assert clean.listed() == {}


def test_pip_install_editable_serves_the_live_file(clean, example):
    clean.install("--editable", example)
    function = clean.listed()[EXAMPLE]
    live = example / f"{EXAMPLE}.uxdp"
    assert (function["path"], function["state"]) == (str(live), "editable")
    source = example / f"{EXAMPLE}.c"
    source.write_text(source.read_text().replace("XDP_TX", "XDP_DROP"))
    clean.run(clean.folder / "venv/bin/uxdp-cc", "-c", source.name, cwd=example)
    changed = clean.listed()[EXAMPLE]
    assert (changed["path"], changed["state"]) == (str(live), "editable, changed")
    assert changed["bundle_id"] != function["bundle_id"]
    clean.pip("uninstall", "--quiet", "--yes", "uxdp-l2-swap")
    assert clean.listed() == {}
    assert live.exists()


def test_pip_install_of_a_package_puts_bundles_where_its_code_finds_them(clean, package):
    clean.install(package)
    functions = clean.listed()
    assert set(functions) == {"count", "drop"}
    code = "from importlib.resources import files; print(files('counting').joinpath('bpf/count.uxdp'))"
    assert clean.run(clean.python, "-c", code).strip() == functions["count"]["path"]
    assert functions["drop"]["path"] == str(clean.site / "counting_tools/drop.uxdp")
    clean.pip("uninstall", "--quiet", "--yes", "counting-tools")


def test_wheel_from_the_sdist_is_the_wheel_from_the_tree(clean, package, tmp_path):
    sdist = build(clean, package, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == {*files_below(package), "PKG-INFO"}
    from_tree = build(clean, package, "wheel", tmp_path / "tree")
    # Without --wheel or --sdist, build makes the wheel from the unpacked source distribution.
    clean.run(clean.python, "-m", "build", "--no-isolation", "--outdir", tmp_path / "both", package)
    assert (tmp_path / "both" / from_tree.name).read_bytes() == from_tree.read_bytes()
    assert from_tree.name == "counting_tools-2.0-py3-none-any.whl"


def test_wheel_in_another_folder_at_another_time_is_byte_identical(clean, package, tmp_path):
    first = build(clean, package, "wheel", tmp_path / "first")
    other = tmp_path / "a longer path" / "elsewhere"
    shutil.copytree(package, other)
    os.utime(other / "extra/drop.c", (1_000_000_000, 1_000_000_000))
    second = build(clean, other, "wheel", tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


def test_pip_install_of_a_source_that_does_not_compile_shows_clangs_message(clean, package):
    (package / "extra/drop.c").write_text(SOURCE.replace("verdict()", "verdikt()"))
    output = clean.install(package, fails=True)
    assert "extra/drop.c:6:12: error:" in output
    assert "verdikt" in output
    assert "uxdp: extra/drop.c: clang failed with exit status 1" in output
    assert "Traceback" not in output


def test_pip_install_with_required_signature_and_no_key_names_the_variable(clean, package):
    pyproject = package / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + 'sign = "require"\nkey-env = "COUNTING_KEY"\n')
    output = clean.install(package, fails=True)
    assert 'hooks.uxdp.sign: "require", and the environment variable COUNTING_KEY is not set' in output
    assert "Traceback" not in output


def test_slow_isolated_pip_install_as_a_user_does(tmp_path, dist, example):
    """No shortcut: pip makes the build environment and gets everything but uxdp from its index."""
    environment = Environment(tmp_path / "isolated")
    environment.pip("install", "--quiet", "--no-deps", "--find-links", dist, example)
    (bundle,) = environment.site.glob("*/*.uxdp")
    (info,) = environment.site.glob("uxdp_l2_swap-*.dist-info")
    (entry,) = json.loads((info / "extra_metadata/uxdp/index.json").read_bytes())["bundles"]
    assert environment.site / entry["path"] == bundle
    assert entry["sha256"] == sha256(bundle.read_bytes()).hexdigest()
    environment.pip("uninstall", "--quiet", "--yes", "uxdp-l2-swap")
    assert list(environment.site.iterdir()) == []


def test_wheel_of_uxdp_has_schema_and_entry_points(dist):
    (wheel,) = dist.glob("uxdp-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "hatch_uxdp/uxdp.schema.json" in names
    assert "[hatch]\nuxdp = hatch_uxdp.hooks\n" in entry_points
    # The name is the table's: validate-pyproject hands [tool.hatch] to the schema of that name.
    assert "[validate_pyproject.tool_schema]\nhatch = hatch_uxdp.schema:get_schema\n" in entry_points
