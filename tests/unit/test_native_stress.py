"""Several workers and a control plane at the same maps, under the sanitizers of gcc."""

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE_TESTS = Path(__file__).parents[1] / "native"
MILLISECONDS_PER_MAP = 200


def build(folder: Path, sanitizer: str) -> Path:
    """Compile the stress program; skip if this machine cannot."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed: apt-get install gcc libc6-dev")
    output = folder / "stress"
    command = ["gcc", "-O1", "-g", "-std=gnu11", "-Wall", "-Wextra", "-Wno-attributes", "-fno-strict-aliasing"]
    command += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-DUXDP_WORKER_STORAGE=__thread"]
    command += [str(NATIVE_TESTS / name) for name in ("stress.c", "module.c")]
    run = subprocess.run([*command, "-pthread", "-o", str(output)], capture_output=True, text=True)
    if "cannot find" in run.stderr:
        pytest.skip(f"gcc has no runtime for -fsanitize={sanitizer}: apt-get install gcc")
    assert run.returncode == 0, run.stderr
    return output


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_concurrent_maps_lose_and_tear_nothing(tmp_path: Path, sanitizer: str) -> None:
    program = build(tmp_path, sanitizer)
    run = subprocess.run([str(program), str(MILLISECONDS_PER_MAP)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert len(run.stdout.splitlines()) == 15
