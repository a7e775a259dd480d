"""Rollback protection: per bundle name, the highest security_version that was ever used.

An old bundle stays correctly signed for ever, flaws included. So a publisher raises security_version when an older one
must not be used any more, and each use of a bundle (after authentication, after it worked) is recorded here. The record
only rises. One small file per name: ``<state directory>/rollback/<name>.json``, canonical JSON.

A state file that cannot be read or understood is an error, because it may be the one that forbids this bundle.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from . import canonical, trusted_files
from .errors import KeyFileError, RollbackError
from .manifest import NAME_PATTERN

MAX_SECURITY_VERSION: Final = (1 << 31) - 1

_MAX_FILE_BYTES = 4096  # a name of 64 characters and an integer need 120
_DIRECTORY_MODE = 0o700
_PARENTS_MODE = 0o755
_FILE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class RollbackState:
    """What was used so far, on disk; ``directory`` is made when the first use is recorded."""

    directory: Path

    @classmethod
    def load(cls) -> Self:
        """Return the state of this process's user.

        :raises KeyFileError: see ``trusted_files.state_dir``
        """
        return cls(trusted_files.state_dir() / "rollback")

    def path(self, name: str) -> Path:
        """Return the file that records bundles of this name.

        :raises KeyFileError: no bundle can have that name
        """
        if not NAME_PATTERN.fullmatch(name):
            raise KeyFileError(f"{name[:80]!r} is no bundle name", context=str(self.directory))
        return self.directory / f"{name}.json"

    def highest(self, name: str) -> int | None:
        """Return the highest security_version used so far, or None if none of that name was.

        :raises KeyFileError: the state is malformed, or in the power of another user
        """
        path = self.path(name)
        if not trusted_files.exists(self.directory):
            return None
        os.close(trusted_files.open_trusted(self.directory, directory=True))
        if not trusted_files.exists(path):
            return None
        data = trusted_files.read_trusted(path, max_bytes=_MAX_FILE_BYTES)
        return _parse_state(data, name, str(path))

    def check(self, name: str, security_version: int) -> None:
        """Refuse a bundle that is older, by security_version, than one that was used.

        :raises RollbackError: it is older
        :raises KeyFileError: see ``highest``
        """
        highest = self.highest(name)
        if highest is not None and security_version < highest:
            raise RollbackError(
                f"security_version {security_version} of {name!r} is older than {highest}, which was used before",
                context="manifest.security_version",
                remedy=f"use a newer bundle; to go back in spite of that, delete {self.path(name)}",
            )

    def record(self, name: str, security_version: int) -> None:
        """Record a successful use; a lower version than the recorded one changes nothing.

        :raises KeyFileError: the state cannot be written, or see ``highest``
        """
        if not 0 <= security_version <= MAX_SECURITY_VERSION:
            raise KeyFileError(f"security_version {security_version}, expected 0..{MAX_SECURITY_VERSION}", context=name)
        path = self.path(name)
        trusted_files.ensure_directory(self.directory, mode=_DIRECTORY_MODE, parents_mode=_PARENTS_MODE)
        with trusted_files.locked(self.directory):
            highest = self.highest(name)
            if highest is not None and highest >= security_version:
                return
            data = canonical.dumps({"name": name, "security_version": security_version}) + b"\n"
            try:
                trusted_files.replace_file(path, data, _FILE_MODE)
            except OSError as cause:
                raise trusted_files.unwritable(path, cause) from cause


def _parse_state(data: bytes, name: str, context: str) -> int:
    value = canonical.loads(data, what=context, max_bytes=_MAX_FILE_BYTES, error=KeyFileError)
    version = value.get("security_version")
    if value.keys() != {"name", "security_version"} or value["name"] != name or type(version) is not int:
        raise KeyFileError(
            f"not the record of {name!r}",
            context=context,
            remedy="restore it from a backup; deleting it allows rollback",
        )
    if not 0 <= version <= MAX_SECURITY_VERSION:
        raise KeyFileError(f"{version}, expected 0..{MAX_SECURITY_VERSION}", context=f"{context}: security_version")
    return version
