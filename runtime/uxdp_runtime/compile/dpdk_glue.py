"""The DPDK port's own C, compiled on this machine against the DPDK that is installed here.

DPDK's functions for bursts are inline functions of its headers, whose structures change from release to release; so
nothing of this can be compiled with the wheel. It is compiled once, by the machine's own compiler, and kept in the
cache by everything that decides what it is: DPDK's version, the compiler, the CPU, and our sources.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

from . import cache
from .compiler import NATIVE_FOLDER

_SOURCE: Final = "ports/dpdk.c"
_SOURCES: Final = ("*.h", "ports/*.h", _SOURCE)
_COMPILERS: Final = ("cc", "gcc", "clang")
_FLAGS: Final = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-strict-aliasing", "-fomit-frame-pointer", "-Wno-unused-function"),
    "-fno-tree-slp-vectorize",  # of what descriptors are filled with, gcc makes vectors, which takes longer
)
_TIMEOUT_SECONDS: Final = 120
_PACKAGES: Final = "apt-get install gcc pkg-config libdpdk-dev dpdk"


def dpdk_glue(cache_directory: Path | None) -> tuple[bytes, str]:
    """Return the shared object, and DPDK's version.

    :param cache_directory: where it is kept; None: nowhere
    :raises UnsupportedFeatureError: no pkg-config, headers, or compiler; ``remedy`` names Debian's packages
    :raises KeyFileError: the cache is not safe to use
    """
    version = _pkg_config("--modversion").strip()
    compiler = _compiler()
    flags = shlex.split(_pkg_config("--cflags", "--libs"))
    material = [version, *compiler, *flags, *_FLAGS, cache.target_key(), _digest()]
    key = hashlib.sha256("\0".join(["dpdk", *material]).encode()).hexdigest()
    if cache_directory is not None:
        found = cache.load_content(cache_directory, key)
        if found is not None:
            return found, version
    made = _compile(compiler[0], flags)
    if cache_directory is not None:
        cache.save_content(cache_directory, key, made)
    return made, version


def _compile(compiler: str, flags: Sequence[str]) -> bytes:
    includes = [flag for flag in flags if not flag.startswith(("-l", "-L", "-Wl", "-march"))]
    libraries = [flag for flag in flags if flag.startswith(("-l", "-L", "-Wl"))]
    with tempfile.TemporaryDirectory(prefix="uxdp-dpdk-") as folder:
        output = Path(folder) / "dpdk.so"
        command = [compiler, *_FLAGS, *includes, "-march=native", _SOURCE, "-o", str(output), *libraries]
        run = _run(command, "the compiler")
        if run.returncode != 0:
            raise UnsupportedFeatureError(
                "DPDK",
                f"{compiler} does not compile the port: {_first_error(run.stderr)}",
                context=str(NATIVE_FOLDER / _SOURCE),
                remedy=f"{_PACKAGES}; DPDK 22.11, 23.11 and 24.11 are known to work",
            )
        return output.read_bytes()


def _pkg_config(*arguments: str) -> str:
    path = shutil.which("pkg-config")
    if path is None:
        raise UnsupportedFeatureError("DPDK", "pkg-config is not installed", remedy=_PACKAGES)
    run = _run([path, *arguments, "libdpdk"], "pkg-config")
    if run.returncode != 0:
        raise UnsupportedFeatureError(
            "DPDK", f"its headers are not installed: {_first_error(run.stderr)}", context="libdpdk", remedy=_PACKAGES
        )
    return run.stdout


def _compiler() -> tuple[str, str]:
    """Return the compiler's path and what it says of itself."""
    wanted = os.environ.get("CC")
    for name in (wanted,) if wanted else _COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path, _run([path, "--version"], name).stdout
    raise UnsupportedFeatureError(
        "DPDK",
        f"no C compiler is installed: looked for {wanted or ', '.join(_COMPILERS)}",
        remedy=_PACKAGES,
    )


def _run(command: Sequence[str], what: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            cwd=NATIVE_FOLDER,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise UnsupportedFeatureError("DPDK", f"{what} does not run: {cause}", remedy=_PACKAGES) from cause


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "it does not say why")


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _SOURCES for path in NATIVE_FOLDER.glob(pattern)}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
