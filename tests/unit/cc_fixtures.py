"""What the tests of uxdp-cc share: small sources, the clangs of this machine, and uxdp-cc beside the clang it wraps."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from uxdp_bundle import binding
from uxdp_bundle.authentication import authenticate
from uxdp_bundle.container import Bundle, bundle_from_bytes
from uxdp_bundle.keys import development_key
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.trust import TrustStore
from uxdp_cc import cli, driver
from uxdp_cc.toolchain import find_toolchain, system_headers

DROP = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return ctx->data < ctx->data_end ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
"""
# Two parts of one network function; the first calls into the second.
CALLER = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int verdict_of(__u32 queue);

SEC("xdp")
int choose(struct xdp_md *ctx)
{
	return verdict_of(ctx->rx_queue_index);
}

char _license[] SEC("license") = "GPL";
"""
CALLEE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

__attribute__((noinline)) int verdict_of(__u32 queue)
{
	return queue > 3 ? XDP_DROP : XDP_PASS;
}
"""

# The front ends that are tested wherever they are installed, beside the one in the ziglang package.
CLANGS = tuple(path for major in (14, 16, 19) if (path := shutil.which(f"clang-{major}")) is not None)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    stdout: str
    stderr: str


class Became(Exception):
    """uxdp-cc became clang, which ended with this status."""


@dataclass
class Project:
    """A folder with sources; uxdp-cc and clang run in it."""

    path: Path
    capture: pytest.CaptureFixture[str]

    def write(self, name: str, text: str = DROP) -> Path:
        """Write a source."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def cc(self, *arguments: str | Path) -> Result:
        """Run uxdp-cc in this process, in the project's folder."""
        self.capture.readouterr()
        with contextlib.chdir(self.path):
            try:
                status = cli.main([str(argument) for argument in arguments])
            except Became as became:
                status = became.args[0]
        return Result(status, *self.capture.readouterr())

    def clang(self, *arguments: str | Path) -> Result:
        """Run the clang that uxdp-cc wraps, with what uxdp-cc puts in front; nothing keeps places out of the output."""
        return run([*clang_line(), *arguments], self.path)

    def bundle(self, name: str) -> Bundle:
        """Open a bundle."""
        return bundle_from_bytes((self.path / name).read_bytes(), path=name)

    def files(self) -> set[str]:
        """Return the names of all files, hidden ones too."""
        return {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if not path.is_dir()}


@pytest.fixture
def project(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, in which uxdp-cc does not replace the tests' process by clang."""

    def become(command: Sequence[str]) -> None:
        raise Became(subprocess.run(command, check=False).returncode)

    monkeypatch.setattr(driver, "_become", become)
    monkeypatch.delenv("UXDP_CLANG", raising=False)
    development_key(create=True)  # which uxdp-cc would say
    path = tmp_path / "project"
    path.mkdir()
    return Project(path, capfd)


def clang_line() -> list[str]:
    """Return the clang that uxdp-cc wraps, with what uxdp-cc puts in front; it is silent about what it does not use."""
    toolchain = find_toolchain()
    unwarned = [*toolchain.headers, *system_headers(())]
    defaults = "-target bpf -O2 -g -mcpu=v3 -fno-jump-tables".split()
    return [*toolchain.command, "--start-no-unused-arguments", *defaults, *unwarned, "--end-no-unused-arguments"]


def run(command: Sequence[str | Path], cwd: Path, **options: object) -> Result:
    """Run a command."""
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=120, **options
    )
    return Result(result.returncode, result.stdout, result.stderr)


def command_line(*arguments: str) -> list[str]:
    """Return the command line of uxdp-cc as a process of its own."""
    return [sys.executable, "-m", "uxdp_cc", *arguments]


def bound(image: bytes) -> binding.Binding:
    """Bind a bundle that nobody needs to have signed."""
    with bundle_from_bytes(image) as bundle:
        authentic = authenticate(
            bundle, TrustStore(), now=datetime.now(UTC), rollback=RollbackState.load(), allow_unsigned=True
        )
        return binding.bind(authentic).binding


def fake_clang(folder: Path, name: str, version: str, resource_dir: str = "/nowhere") -> Path:
    """Write a command that says it is a clang of some version, and can do nothing else."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'clang version {version}' >&2\necho {resource_dir}\n")
    path.chmod(0o755)
    return path


def without_ziglang(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the ziglang package one that is not installed."""
    monkeypatch.setitem(sys.modules, "ziglang", None)
