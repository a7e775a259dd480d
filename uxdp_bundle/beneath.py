"""Read a file beneath a directory without following any link on the way.

O_NOFOLLOW guards only the last component of a path. So a path is walked component by component, each one opened from
its parent's descriptor: neither a link nor a renamed directory can lead the reader out of the tree it began in.

References: open(2) O_NOFOLLOW, openat(2)
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from .errors import FileAccessError

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


def open_directory(path: str | Path) -> int:
    """Open the directory to begin in, which may be reached through links, and return its descriptor.

    :raises FileAccessError: there is no such directory, or it cannot be read
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as cause:
        if cause.errno == errno.ENOTDIR:
            raise FileAccessError("is no directory", errno=errno.ENOTDIR, context=str(path)) from cause
        raise _unreadable(cause, str(path)) from cause


def read_beneath(start: int, parts: Sequence[str], limit: int, where: str, *, owned: bool = False) -> bytes:
    """Return the content of a regular file.

    :param start: descriptor of the directory to begin in, borrowed
    :param parts: the path's components; no ``..`` among them
    :param limit: a file of more bytes is refused before it is read
    :param where: the path for messages
    :param owned: require that the file and every directory belong to root or this user and that nobody else can write
    :raises FileAccessError: missing, unreadable, behind a link, no regular file, too large, or in another user's power
    """
    fd = os.dup(start)
    try:
        for depth, part in enumerate(parts, 1):
            # O_NONBLOCK: opening a FIFO that somebody put there must not hang.
            kind = os.O_NONBLOCK if depth == len(parts) else os.O_DIRECTORY
            deeper = os.open(part, _FLAGS | kind, dir_fd=fd)
            os.close(fd)
            fd = deeper
            if owned:
                _check_owner(os.fstat(fd), "/" + "/".join(parts[:depth]))
        return _read_regular(fd, limit, where)
    except OSError as cause:
        if isinstance(cause, FileAccessError):
            raise
        raise _unreadable(cause, where) from cause
    finally:
        os.close(fd)


def _read_regular(fd: int, limit: int, where: str) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise FileAccessError("is no regular file", errno=errno.EINVAL, context=where)
    if status.st_size > limit:
        raise FileAccessError(f"{status.st_size} bytes, at most {limit} allowed", errno=errno.EFBIG, context=where)
    with open(fd, "rb", closefd=False) as file:
        data = file.read(status.st_size + 1)
    if len(data) != status.st_size:
        raise FileAccessError("changed while it was read", errno=errno.EAGAIN, context=where)
    return data


def _check_owner(status: os.stat_result, where: str) -> None:
    mode = stat.S_IMODE(status.st_mode)
    # In a sticky directory (/tmp) nobody else can rename or remove what this user put there.
    sticky = stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX
    if status.st_uid in (0, os.geteuid()) and (not mode & (stat.S_IWGRP | stat.S_IWOTH) or sticky):
        return
    raise FileAccessError(
        f"belongs to uid {status.st_uid} with mode {mode:04o}: another user could put something else there",
        errno=errno.EPERM,
        context=where,
    )


def _unreadable(cause: OSError, where: str) -> FileAccessError:
    # O_NOFOLLOW gives ELOOP for a link, and ENOTDIR when O_DIRECTORY is asked for too.
    if cause.errno in (errno.ELOOP, errno.ENOTDIR):
        message = "is, or lies behind, a symbolic link or something that is no directory"
    else:
        message = cause.strerror or "cannot be read"
    return FileAccessError(message, errno=cause.errno or errno.EIO, context=where)
