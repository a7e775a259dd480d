"""What every test in this folder needs: a kernel that loads programs, a place to pin them, and the examples."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.isolated_user import isolate
from tests.privileged.bpftool_run import Load, Program, with_constants
from tests.serving import run_folder
from tests.serving_dpdk import namespace
from tests.veth import veth_pair
from uxdp_bundle.errors import UxdpError
from uxdp_runtime.compile.cache import cache_directory
from uxdp_runtime.compile.dpdk_glue import dpdk_glue
from uxdp_runtime.ports.af_xdp import RingSizes, XdpSocket
from uxdp_runtime.serve.control_socket import RUN_FOLDER

EXAMPLES = Path(__file__).parents[2] / "examples"


def _mount_bpffs(path: Path) -> None:
    subprocess.run(["mount", "-t", "bpf", "bpffs", str(path)], check=True, capture_output=True, text=True)


def _unmount(path: Path) -> None:
    subprocess.run(["umount", str(path)], check=True, capture_output=True, text=True)


def _why_not(scratch: Path) -> str:
    """Say what is missing and what to do about it; empty if programs can be loaded here."""
    if os.geteuid() != 0:
        return "loading programs needs root: run as root, or `sudo make test`"
    if shutil.which("bpftool") is None:
        return "bpftool is not installed: apt-get install bpftool"
    try:
        _mount_bpffs(scratch)
    except subprocess.CalledProcessError as error:
        return f"no bpffs can be mounted here ({error.stderr.strip()}): run outside of a restricted container"
    try:
        command = ["bpftool", "map", "create", str(scratch / "probe"), "type", "array"]
        command += ["key", "4", "value", "4", "entries", "1", "name", "probe"]
        probe = subprocess.run(command, check=False, capture_output=True, text=True)
    finally:
        _unmount(scratch)
    if probe.returncode != 0:
        return f"bpf(2) is refused here ({probe.stderr.strip()}): run with CAP_BPF and CAP_NET_ADMIN"
    return ""


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip unless this kernel loads programs for us; fail instead if UXDP_REQUIRE lists ``kernel``."""
    reason = _why_not(tmp_path_factory.mktemp("probe"))
    if not reason:
        return
    if "kernel" in os.environ.get("UXDP_REQUIRE", "").split(","):
        pytest.fail(f"UXDP_REQUIRE=kernel: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def afxdp(kernel: None) -> None:
    """Skip unless AF_XDP sockets can be made and joined to a queue; fail instead if UXDP_REQUIRE lists ``afxdp``."""
    reason = _why_no_af_xdp()
    if not reason:
        return
    if "afxdp" in os.environ.get("UXDP_REQUIRE", "").split(","):
        pytest.fail(f"UXDP_REQUIRE=afxdp: {reason}")
    pytest.skip(reason)


def _why_no_af_xdp() -> str:
    if shutil.which("ip") is None:
        return "ip(8) is not installed: apt-get install iproute2"
    try:
        with XdpSocket(RingSizes()):
            pass
        with veth_pair():
            pass
    except (UxdpError, subprocess.CalledProcessError) as error:
        return f"no AF_XDP on veth pairs between namespaces here ({error}): use a kernel that has them, as root"
    return ""


@pytest.fixture(scope="session")
def dpdk(kernel: None) -> None:
    """Skip unless DPDK's headers and drivers are installed; fail instead if UXDP_REQUIRE lists ``dpdk``."""
    try:
        dpdk_glue(cache_directory())
    except UxdpError as error:
        reason = f"{error} ({error.remedy})"
    else:
        return
    if "dpdk" in os.environ.get("UXDP_REQUIRE", "").split(","):
        pytest.fail(f"UXDP_REQUIRE=dpdk: {reason}")
    pytest.skip(reason)


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be a user with keys, trust, cache and control sockets of the test's own."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])


@pytest.fixture
def where() -> Iterator[str]:
    """A network namespace of the test's own."""
    with namespace() as name:
        yield name


@pytest.fixture
def bpffs(kernel: None, tmp_path: Path) -> Iterator[Path]:
    """A bpffs of the test's own, gone with all that is pinned in it when the test ends."""
    path = tmp_path / "bpffs"
    path.mkdir()
    _mount_bpffs(path)
    try:
        yield path
    finally:
        _unmount(path)


def build_object(source: Path, out: Path) -> None:
    """Compile one example the way the README says."""
    import ziglang

    headers = Path(next(iter(ziglang.__path__))) / "lib" / "include"
    command = [sys.executable, "-m", "ziglang", "clang", "-target", "bpf", "-O2", "-g", "-mcpu=v3"]
    command += ["-Wall", "-Wextra", "-Werror", f"-I/usr/include/{os.uname().machine}-linux-gnu"]
    command += ["-isystem", str(headers), "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True, timeout=120)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[tuple[str, str], ...]], Path]:
    """Compile an example once, optionally with some of its #defines changed."""
    folder = tmp_path_factory.mktemp("objects")
    done: dict[tuple[str, tuple[tuple[str, str], ...]], Path] = {}

    def build(name: str, edits: tuple[tuple[str, str], ...] = ()) -> Path:
        if (name, edits) not in done:
            text = (EXAMPLES / name / f"{name}.c").read_text()
            for before, after in edits:
                assert before in text
                text = text.replace(before, after)
            here = folder / str(len(done))
            here.mkdir()
            (here / f"{name}.c").write_text(text)
            done[name, edits] = here / f"{name}.uxdp"
            build_object(here / f"{name}.c", done[name, edits])
        return done[name, edits]

    return build


@pytest.fixture
def load(bpffs: Path, tmp_path: Path, built: Callable[..., Path]) -> Load:
    """Load a freshly made program, optionally with other constants."""

    def load_program(name: str, *, edits: tuple[tuple[str, str], ...] = (), **constants: bytes) -> Program:
        obj = tmp_path / f"{name}.uxdp"
        obj.write_bytes(with_constants(built(name, edits).read_bytes(), constants))
        return Program(obj, bpffs / name, tmp_path)

    return load_program


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Keep the frames of one test on one CPU, so that its copy of a per-CPU map holds everything."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)
