"""Compiled objects on disk, so that a program is compiled once for a machine.

One file per object, named by the SHA-256 of everything that decides its content; written at once by rename, so readers
and writers need no lock. What is cached will run as native code, so the directory and the file must belong to root or
to this user and be writable by nobody else, and the content carries its own hash against damage.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Final

from uxdp_bundle import trusted_files
from uxdp_bundle.errors import KeyFileError

from .compiler import NativeObject, ProgramSource, Target, native_library

SYSTEM_CACHE: Final = Path("/var/cache/uxdp")
CACHE_VARIABLE: Final = "UXDP_CACHE_DIR"
_MAGIC: Final = b"uxdp-native-1\n"
_MAX_BYTES: Final = 64 << 20
_DIGEST_BYTES: Final = 32


def cache_directory() -> Path:
    """Return where this user's compiled objects are: $UXDP_CACHE_DIR, /var/cache/uxdp for root, else below XDG's."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return SYSTEM_CACHE
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uxdp"


def cache_key(bundle_id: str, source: ProgramSource, target: Target, llvm: str) -> str:
    """Return the name of an object: a digest of the bundle, the options, the native library, LLVM and the CPU."""
    material = {
        "bundle": bundle_id,
        "object": hashlib.sha256(source.object).hexdigest(),
        "entry": source.entry,
        "num_cpus": source.num_cpus,
        "values": None if source.values is None else dict(source.values),
        "constants": {name: content.hex() for name, content in source.constants.items()},
        "library": hashlib.sha256(native_library(target.machine)).hexdigest(),
        "target": [target.machine, target.cpu, target.features],
        "llvm": llvm,
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def load(directory: Path, key: str, target: Target, llvm: str) -> NativeObject | None:
    """Return a cached object, or None if there is none or it is damaged.

    :raises KeyFileError: the directory or the file is in the power of another user
    """
    path = directory / key
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
    return NativeObject(content, target, llvm)


def save(directory: Path, key: str, native: NativeObject) -> None:
    """Store a compiled object under its key.

    :raises KeyFileError: the directory is not safe to use or cannot be written
    """
    trusted_files.ensure_directory(directory, mode=0o700, parents_mode=0o755)
    path = directory / key
    try:
        trusted_files.replace_file(path, _MAGIC + hashlib.sha256(native.data).digest() + native.data, 0o600)
    except OSError as cause:
        if isinstance(cause, KeyFileError):
            raise
        raise trusted_files.unwritable(path, cause) from cause
