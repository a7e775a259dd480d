"""Compiled objects on disk, so that a program is compiled once for a machine, and what LLVM calls this machine's CPU.

One file per object, named by the SHA-256 of everything that decides its content; written at once by rename, so readers
and writers need no lock. What is cached will run as native code, so the directory and the file must belong to root or
to this user and be writable by nobody else, and the content carries its own hash against damage.
"""

import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from uxdp_bundle import trusted_files
from uxdp_bundle.errors import KeyFileError

from .compiler import NativeObject, ProgramSource, Target, Variant, native_library

SYSTEM_CACHE: Final = Path("/var/cache/uxdp")
CACHE_VARIABLE: Final = "UXDP_CACHE_DIR"
_MAGIC: Final = b"uxdp-native-1\n"
_MAX_BYTES: Final = 64 << 20
_DIGEST_BYTES: Final = 32
_CHANGING: Final = ("processor", "cpu MHz", "bogomips", "apicid", "initial apicid", "core id", "physical id")


def cache_directory() -> Path:
    """Return where this user's compiled objects are: $UXDP_CACHE_DIR, /var/cache/uxdp for root, else below XDG's."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return SYSTEM_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uxdp"


def cache_key(bundle_id: str, source: ProgramSource, target: Target, llvm: str, variant: Variant | None = None) -> str:
    """Return the name of an object: a digest of the bundle, the options, this runtime, LLVM and the CPU.

    :param variant: how it is compiled, if not as it is served
    """
    material = {
        **({} if variant is None else {"variant": asdict(variant)}),
        "bundle": bundle_id,
        "object": hashlib.sha256(source.object).hexdigest(),
        "entry": source.entry,
        "num_cpus": source.num_cpus,
        "values": None if source.values is None else dict(source.values),
        "constants": {name: content.hex() for name, content in source.constants.items()},
        "library": hashlib.sha256(native_library(target.machine)).hexdigest(),
        "compiler": _compiler_digest(),
        "target": [target.machine, target.cpu, target.features],
        "llvm": [llvm, _llvm()],
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def target_key() -> str:
    """Return the name under which this machine's CPU is remembered: a digest of what the kernel says of it, and LLVM.

    The first paragraph of /proc/cpuinfo, without what changes all the time.
    """
    first, _, _others = Path("/proc/cpuinfo").read_text().partition("\n\n")
    lines = [line for line in first.splitlines() if not line.startswith(_CHANGING)]
    return hashlib.sha256("\n".join([*lines, _llvm()]).encode()).hexdigest()


def load_target(directory: Path, key: str) -> Target | None:
    """Return this machine's CPU, or None if it is not known or the file is damaged.

    :raises KeyFileError: the directory or the file is in the power of another user
    """
    content = _load(directory, key)
    try:
        return None if content is None else Target(**json.loads(content))
    except (ValueError, TypeError):
        return None


def save_target(directory: Path, key: str, target: Target) -> None:
    """Remember this machine's CPU.

    :raises KeyFileError: the directory is not safe to use or cannot be written
    """
    content = {"machine": target.machine, "cpu": target.cpu, "features": target.features}
    _save(directory, key, json.dumps(content).encode())


def load(directory: Path, key: str, target: Target, llvm: str) -> NativeObject | None:
    """Return a cached object, or None if there is none or it is damaged.

    :raises KeyFileError: the directory or the file is in the power of another user
    """
    content = _load(directory, key)
    return None if content is None else NativeObject(content, target, llvm)


def save(directory: Path, key: str, native: NativeObject) -> None:
    """Store a compiled object under its key.

    :raises KeyFileError: the directory is not safe to use or cannot be written
    """
    _save(directory, key, native.data)


def load_content(directory: Path, key: str) -> bytes | None:
    """Return what was kept under a key, or None if there is nothing or it is damaged.

    :raises KeyFileError: the directory or the file is in the power of another user
    """
    return _load(directory, key)


def save_content(directory: Path, key: str, content: bytes) -> None:
    """Keep something under its key.

    :raises KeyFileError: the directory is not safe to use or cannot be written
    """
    _save(directory, key, content)


def _load(directory: Path, key: str) -> bytes | None:
    path = directory / key
    with _own_directory():
        if not trusted_files.exists(directory):
            return None
        os.close(trusted_files.open_trusted(directory, directory=True))
        if not trusted_files.exists(path):
            return None
        data = trusted_files.read_trusted(path, max_bytes=_MAX_BYTES)
    header = len(_MAGIC) + _DIGEST_BYTES
    content = data[header:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : header] != hashlib.sha256(content).digest():
        return None
    return content


def _save(directory: Path, key: str, content: bytes) -> None:
    path = directory / key
    with _own_directory():
        trusted_files.ensure_directory(directory, mode=0o700, parents_mode=0o755)
        try:
            trusted_files.replace_file(path, _MAGIC + hashlib.sha256(content).digest() + content, 0o600)
        except OSError as cause:
            raise trusted_files.unwritable(path, cause) from cause


@contextmanager
def _own_directory() -> Iterator[None]:
    """Say with every refusal that another directory will do as well."""
    try:
        yield
    except KeyFileError as error:
        error.remedy = ", or ".join(filter(None, (error.remedy, f"name a directory of your own in {CACHE_VARIABLE}")))
        raise


@functools.cache
def _compiler_digest() -> str:
    """Return what stands for the version of this runtime, also while one works on it: a digest of the compiler, and of
    the rules of the format that it relies on.
    """
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(trusted_files.__file__).parent):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _llvm() -> str:
    """Return the version of the package that LLVM comes with; without it nothing is compiled."""
    try:
        return importlib.metadata.version("llvmlite")
    except importlib.metadata.PackageNotFoundError:
        return ""
