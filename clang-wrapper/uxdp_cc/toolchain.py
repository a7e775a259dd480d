"""Find the clang that makes the IR, and say where headers for BPF programs are."""

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from uxdp_bundle.lowering import LLVM_MAJOR

from .errors import ToolchainError

# Bitcode is read by newer LLVMs, back to very old ones; what is tested here starts with Debian 12's clang-14.
OLDEST_MAJOR: Final = 14
CLANG_VARIABLE: Final = "UXDP_CLANG"
# Set while a candidate is asked for its version: a uxdp-cc that is named clang, or by $UXDP_CLANG, must not ask itself.
_PROBING: Final = "_UXDP_CC_PROBING"
_PROBE_SECONDS = 30
_VERSION = re.compile(r"clang version (\d+)\.\d+\.\d+")
# Debian's multiarch names where they differ from uname -m.
_MULTIARCH: Final = {"ppc64le": "powerpc64le", "i686": "i386"}


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One clang: how to run it, and what it says it is (``clang version 22.1.8``, without vendor and paths)."""

    command: tuple[str, ...]
    version: str
    # The folder of this clang's own headers and libraries, which must not be named in the output.
    resource_dir: str = ""
    # Arguments that this clang needs to find that folder.
    headers: tuple[str, ...] = ()


def find_toolchain() -> Toolchain:
    """Return the clang to use: $UXDP_CLANG, else the ziglang package's, else the newest usable one on PATH.

    :raises ToolchainError: there is none, or $UXDP_CLANG names none that can be used
    """
    if _PROBING in os.environ:
        raise ToolchainError("uxdp-cc stands where it looks for a clang", remedy=f"name another in ${CLANG_VARIABLE}")
    chosen = os.environ.get(CLANG_VARIABLE, "")
    if chosen:
        return _chosen(chosen)
    seen: list[str] = []
    return _ziglang(seen) or _on_path(seen) or _nothing(seen)


# gnu/stubs-32.h; see there.
_OWN_HEADERS: Final = Path(__file__).parent / "include"


def system_headers(arguments: Sequence[str]) -> list[str]:
    """Return the arguments by which <asm/types.h> is found: clang searches no multiarch folder for -target bpf.

    Behind it stands a folder of our own, with what the C library's headers ask for where no machine is defined.
    """
    if {"-nostdinc", "-nostdlibinc", "--no-standard-includes"} & set(arguments):
        return []
    root = "/"
    for position, argument in enumerate(arguments):
        if argument.startswith("--sysroot="):
            root = argument.partition("=")[2]
        elif argument in ("--sysroot", "-isysroot") and position + 1 < len(arguments):
            root = arguments[position + 1]
    machine = platform.machine()
    folder = Path(root) / "usr/include" / f"{_MULTIARCH.get(machine, machine)}-linux-gnu"
    return ["-idirafter", str(folder), "-idirafter", str(_OWN_HEADERS)] if folder.is_dir() else []


class _Probe(NamedTuple):
    """What a candidate says of itself; major 0 if it is no clang."""

    major: int
    version: str
    resource_dir: str

    @property
    def usable(self) -> bool:
        return OLDEST_MAJOR <= self.major <= LLVM_MAJOR


def _chosen(text: str) -> Toolchain:
    remedy = f"unset ${CLANG_VARIABLE}, or let it name a clang {OLDEST_MAJOR}..{LLVM_MAJOR}"
    try:
        # A path may hold spaces; only what is no file as a whole is a command with arguments.
        command = (text,) if shutil.which(text) else tuple(shlex.split(text))
    except ValueError as cause:
        raise ToolchainError(f"${CLANG_VARIABLE} is {text!r}: {cause}", remedy=remedy) from cause
    probe = _probe(command)
    if probe.major == 0:
        raise ToolchainError(f"${CLANG_VARIABLE} is {text!r}, which does not run as a clang", remedy=remedy)
    if not probe.usable:
        raise ToolchainError(
            f"${CLANG_VARIABLE} is {probe.version}, whose bitcode LLVM {LLVM_MAJOR} may not read: "
            f"expected clang {OLDEST_MAJOR}..{LLVM_MAJOR}",
            remedy=remedy,
        )
    return Toolchain(command, probe.version, probe.resource_dir)


def _ziglang(seen: list[str]) -> Toolchain | None:
    """The clang inside of PyPI's ziglang: called directly, which saves starting a second interpreter."""
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    command = (str(folder / "zig"), "clang")
    probe = _probe(command)
    if not probe.usable:
        seen.append(f"ziglang has {probe.version or 'no clang that runs'}")
        return None
    # It looks for its headers where an installed clang would have them, and they are elsewhere.
    resources = str(folder / "lib")
    return Toolchain(command, probe.version, resources, headers=("-resource-dir", resources))


def _on_path(seen: list[str]) -> Toolchain | None:
    found: dict[int, Toolchain] = {}
    for name in ("clang", *(f"clang-{major}" for major in range(LLVM_MAJOR, OLDEST_MAJOR - 1, -1))):
        path = shutil.which(name)
        if path is None or (found and name == f"clang-{max(found)}"):
            continue
        probe = _probe((path,))
        if probe.usable:
            found.setdefault(probe.major, Toolchain((path,), probe.version, probe.resource_dir))
        else:
            seen.append(f"{path} is {probe.version or 'no clang that runs'}")
    return found[max(found)] if found else None


def _nothing(seen: list[str]) -> Toolchain:
    raise ToolchainError(
        f"no clang {OLDEST_MAJOR}..{LLVM_MAJOR}: neither the ziglang package nor PATH has one"
        + (f" ({', '.join(seen)})" if seen else ""),
        remedy="pip install 'uxdp[clang]', or apt-get install clang",
    )


def _probe(command: Sequence[str]) -> _Probe:
    """Ask a command which clang it is: -v reports the version on stderr, -print-resource-dir the folder on stdout."""
    try:
        result = subprocess.run(
            [*command, "-v", "-print-resource-dir"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, _PROBING: "1"},
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return _Probe(0, "", "")
    found = _VERSION.search(result.stderr.decode(errors="replace"))
    if found is None or result.returncode != 0:
        return _Probe(0, "", "")
    return _Probe(int(found[1]), found[0], os.fsdecode(result.stdout).strip())
