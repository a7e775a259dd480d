"""Files whose content decides what is trusted: where they are, when they are safe to read, how they are written.

A key or trust file that another user can write is worth nothing, so every one is opened without following a symbolic
link, and the *descriptor* is examined: a regular file (or directory) of root's or of the effective user's, that neither
group nor world may write. What was examined is what is read; a path is never looked up twice.

Root never takes trust from a directory of the user who called sudo: under sudo root's own home is used, whatever HOME
and XDG_CONFIG_HOME say.

References: open(2) O_NOFOLLOW, link(2), rename(2), XDG Base Directory Specification 0.8
"""

import errno
import fcntl
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .errors import KeyFileError

SYSTEM_CONFIG_DIR: Final = Path("/etc/uxdp")
SYSTEM_STATE_DIR: Final = Path("/var/lib/uxdp")
SYSTEM_CONFIG_VARIABLE: Final = "UXDP_SYSTEM_CONFIG"
STATE_VARIABLE: Final = "UXDP_STATE_DIR"

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ACCESSIBLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def system_config_dir() -> Path:
    """Return the directory of the trust of all users: ``$UXDP_SYSTEM_CONFIG``, else /etc/uxdp.

    :raises KeyFileError: the variable holds a relative path
    """
    return _override(SYSTEM_CONFIG_VARIABLE) or SYSTEM_CONFIG_DIR


def user_config_dir() -> Path:
    """Return the directory of the effective user's own trust and development key.

    :raises KeyFileError: the user has no home directory
    """
    return _xdg("XDG_CONFIG_HOME", ".config") / "uxdp"


def state_dir() -> Path:
    """Return where use is recorded: ``$UXDP_STATE_DIR``, else /var/lib/uxdp for root and the XDG state directory.

    :raises KeyFileError: the variable holds a relative path, or the user has no home directory
    """
    override = _override(STATE_VARIABLE)
    if override is not None:
        return override
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIR
    return _xdg("XDG_STATE_HOME", ".local/state") / "uxdp"


def open_trusted(path: Path, *, directory: bool = False, secret: bool = False, dir_fd: int | None = None) -> int:
    """Open a file or directory for reading and return its descriptor, which the caller closes.

    :param path: what to open, and what messages call it
    :param directory: a directory is wanted, not a regular file
    :param secret: nobody else may even read it
    :param dir_fd: descriptor of the directory that holds it; then only the last part of ``path`` is looked up
    :raises KeyFileError: it is missing, a symbolic link, of the wrong kind, or in the power of another user
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_DIRECTORY if directory else 0)
    try:
        fd = os.open(path if dir_fd is None else path.name, flags, dir_fd=dir_fd)
    except (OSError, ValueError) as cause:
        raise _unreadable(path, cause, directory) from cause
    try:
        _check_ownership(path, os.fstat(fd), directory=directory, secret=secret)
    except KeyFileError:
        os.close(fd)
        raise
    return fd


def read_trusted(path: Path, *, max_bytes: int, secret: bool = False, dir_fd: int | None = None) -> bytes:
    """Return the content of a key or trust file; see ``open_trusted``.

    :raises KeyFileError: as ``open_trusted``, or the file is larger than ``max_bytes``
    """
    fd = open_trusted(path, secret=secret, dir_fd=dir_fd)
    try:
        data = b""
        while len(data) <= max_bytes:
            chunk = os.read(fd, max_bytes + 1 - len(data))
            if not chunk:
                return data
            data += chunk
    except OSError as cause:
        raise _unreadable(path, cause, False) from cause
    finally:
        os.close(fd)
    raise KeyFileError(f"more than {max_bytes} bytes, which no key or trust file has", context=str(path))


def read_trusted_directory(path: Path, *, suffix: str, max_files: int, max_bytes: int) -> dict[Path, bytes]:
    """Return the content of every file in ``path`` whose name ends in ``suffix``, by name; hidden files do not count.

    A directory that does not exist is empty.

    :raises KeyFileError: the directory or one of the files is not safe to use, or there are more than ``max_files``
    """
    if not exists(path):
        return {}
    fd = open_trusted(path, directory=True)
    try:
        with os.scandir(fd) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        names = [name for name in names if name.endswith(suffix)]
        if len(names) > max_files:
            raise KeyFileError(f"{len(names)} files, at most {max_files} allowed", context=str(path))
        return {path / name: read_trusted(path / name, max_bytes=max_bytes, dir_fd=fd) for name in names}
    finally:
        os.close(fd)


def exists(path: Path) -> bool:
    """Return whether something of that name exists, be it a dangling link.

    :raises KeyFileError: a directory on the way cannot be searched
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as cause:
        raise _unreadable(path, cause, False) from cause
    return True


def ensure_directory(path: Path, *, mode: int, parents_mode: int) -> None:
    """Create a directory and what is missing above it, with exactly these modes; check it if it exists.

    :raises KeyFileError: it cannot be created, or is not safe to use
    """
    missing = [path]
    while not exists(missing[-1].parent):
        missing.append(missing[-1].parent)
    try:
        for part in reversed(missing):
            with suppress(FileExistsError):
                part.mkdir(mode=0o700)
                part.chmod(mode if part == path else parents_mode)
    except OSError as cause:
        raise unwritable(path, cause) from cause
    os.close(open_trusted(path, directory=True))


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file with its whole content at once; never overwrite one, and never show a part of it.

    :raises FileExistsError: there is a file of that name, which stays as it is
    :raises OSError: it could not be written; nothing is left behind
    """
    temporary = _write_temporary(path, data, mode)
    try:
        os.link(temporary, path, follow_symlinks=False)
    finally:
        temporary.unlink()
    _sync_directory(path.parent)


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file with its whole content at once, in place of one of that name if there is one.

    :raises OSError: it could not be written; the old file stays as it is, and nothing is left behind
    """
    temporary = _write_temporary(path, data, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    _sync_directory(path.parent)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the one lock of a directory, for read-modify-write of its files.

    The lock is a file of its own that only its owner may open: anyone who can read a directory could lock *it*, and so
    stop everybody else for ever.

    :raises KeyFileError: the lock cannot be had
    """
    path = directory / ".lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as cause:
        raise unwritable(path, cause) from cause
    try:
        _check_ownership(path, os.fstat(fd), directory=False, secret=True)
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def unwritable(path: Path, cause: OSError) -> KeyFileError:
    """Return the error for a key or trust file that could not be written."""
    remedy = ""
    if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        remedy = "run the command as the owner of that directory (sudo), or choose another one"
    return KeyFileError(f"cannot be written: {cause.strerror or cause}", context=str(path), remedy=remedy)


def _override(variable: str) -> Path | None:
    value = os.environ.get(variable, "")
    if not value:
        return None
    if not value.startswith("/"):
        raise KeyFileError(f"{value!r}, expected an absolute path", context=variable, remedy=f"unset {variable}")
    return Path(value)


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # "If an implementation encounters a relative path … it should consider the path invalid and ignore it."
    if value.startswith("/") and not _is_root_under_sudo():
        return Path(value)
    return _home() / default


def _is_root_under_sudo() -> bool:
    return os.geteuid() == 0 and "SUDO_UID" in os.environ


def _home() -> Path:
    home = os.environ.get("HOME", "")
    if home.startswith("/") and not _is_root_under_sudo():
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError as cause:
        raise KeyFileError(
            f"uid {os.geteuid()} has no home directory", context="HOME", remedy="set HOME to a directory of this user"
        ) from cause


def _check_ownership(path: Path, status: os.stat_result, *, directory: bool, secret: bool) -> None:
    if not directory and not stat.S_ISREG(status.st_mode):
        raise KeyFileError("is no regular file", context=str(path), remedy="put a regular file in its place")
    mode = stat.S_IMODE(status.st_mode)
    user = os.geteuid()
    if status.st_uid not in (0, user):
        wanted = "root" if user == 0 else f"root or uid {user}"
        raise KeyFileError(
            f"belongs to uid {status.st_uid} (mode {mode:04o}), expected {wanted}, for its owner can write it",
            context=str(path),
            remedy=f"chown {user} {_quoted(path)}",
        )
    if mode & _WRITABLE_BY_OTHERS:
        raise KeyFileError(
            f"mode {mode:04o} (owner uid {status.st_uid}) lets other users write it",
            context=str(path),
            remedy=f"chmod {'600' if secret else 'go-w'} {_quoted(path)}",
        )
    if secret and mode & _ACCESSIBLE_BY_OTHERS:
        raise KeyFileError(
            f"mode {mode:04o} (owner uid {status.st_uid}) lets other users read the secret key, expected 0600",
            context=str(path),
            remedy=f"chmod 600 {_quoted(path)}",
        )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _unreadable(path: Path, cause: OSError | ValueError, directory: bool) -> KeyFileError:
    wanted = "a directory" if directory else "a regular file"
    if isinstance(cause, ValueError):  # an embedded null byte
        return KeyFileError(str(cause), context=repr(str(path)))
    if cause.errno == errno.ELOOP or (cause.errno == errno.ENOTDIR and path.is_symlink()):
        return KeyFileError(f"is a symbolic link, expected {wanted}", context=str(path), remedy=f"name {wanted} itself")
    return KeyFileError(f"cannot be read: {cause.strerror}", context=str(path))


def _write_temporary(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        os.fsync(fd)
    except OSError:
        temporary.unlink()
        raise
    finally:
        os.close(fd)
    return temporary


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
