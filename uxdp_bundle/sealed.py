"""Read a file once into sealed memory, so that what was checked is what is used.

A path can name another file a moment later. So a bundle's file is opened once, copied into a memfd, and the memfd is
sealed: from then on nobody, not even this process, can change a byte. Hashes, parsers and loaders see only the copy.

References: memfd_create(2), fcntl(2) "File Sealing"
"""

import errno
import fcntl
import mmap
import os
import stat
from contextlib import suppress

from .errors import BundleFormatError, FileAccessError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_CHUNK_BYTES = 1 << 20


class SealedMemory:
    """Immutable bytes behind a descriptor.

    ``fd`` is a sealed memfd, owned; ``view`` is a read-only memoryview of uint8, borrowed until ``close()``.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) if size else None
        self.view = memoryview(self._map) if self._map is not None else memoryview(b"")

    @property
    def path(self) -> str:
        """A path under which other code of this process (libbpf, for one) can open the sealed bytes."""
        return f"/proc/self/fd/{self.fd}"

    def close(self) -> None:
        """Release the descriptor and the view.

        The memory goes with the last slice of the view: the frames of an exception that is on its way may hold some.
        """
        if self.fd >= 0:
            self.view.release()
            if self._map is not None:
                with suppress(BufferError):  # "cannot close exported pointers exist"
                    self._map.close()
            os.close(self.fd)
            self.fd = -1


def seal_bytes(data: bytes | memoryview, name: str = "uxdp") -> SealedMemory:
    """Copy ``data`` into new sealed memory."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write_all(fd, memoryview(data))
        os.lseek(fd, 0, os.SEEK_SET)  # for a child that reads it as its standard input
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return SealedMemory(fd, len(data))
    except BaseException:
        os.close(fd)
        raise


def read_sealed(path: str | os.PathLike[str], max_bytes: int) -> SealedMemory:
    """Read a regular file once into sealed memory.

    :param max_bytes: a larger file is refused before it is read
    :raises FileAccessError: missing, unreadable, a symbolic link, no regular file, or changed while it was read
    :raises BundleFormatError: larger than ``max_bytes``
    """
    name = os.fspath(path)
    source = _open_regular(name)
    try:
        before = os.fstat(source)
        if before.st_size > max_bytes:
            raise BundleFormatError(f"{before.st_size} bytes, at most {max_bytes} allowed", context=name)
        copy = os.memfd_create("uxdp-bundle", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            size = 0
            while chunk := os.read(source, _CHUNK_BYTES):
                size += len(chunk)
                if size > before.st_size:
                    raise _changed(name)
                _write_all(copy, memoryview(chunk))
            _check_unchanged(name, source, before, size)
            fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
            return SealedMemory(copy, size)
        except BaseException:
            os.close(copy)
            raise
    except OSError as cause:
        if isinstance(cause, FileAccessError):
            raise
        raise FileAccessError(
            cause.strerror or "cannot be read", errno=cause.errno or errno.EIO, context=name
        ) from cause
    finally:
        os.close(source)


def _open_regular(name: str) -> int:
    try:
        # O_NONBLOCK: opening a FIFO that somebody put there must not hang.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as cause:
        if cause.errno == errno.ELOOP:
            raise FileAccessError(
                "is a symbolic link, expected a regular file",
                errno=errno.ELOOP,
                context=name,
                remedy=f"name the file itself: {os.path.realpath(name)}",
            ) from cause
        raise FileAccessError(
            cause.strerror or "cannot be opened", errno=cause.errno or errno.EIO, context=name
        ) from cause
    except ValueError as cause:  # an embedded null byte
        raise FileAccessError(str(cause), errno=errno.EINVAL, context=repr(name)) from cause
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise FileAccessError("is no regular file", errno=errno.EINVAL, context=name)
    return fd


def _check_unchanged(name: str, source: int, before: os.stat_result, size: int) -> None:
    """Refuse a file that was written, truncated or replaced while it was copied: the copy may be half of each."""
    after = os.fstat(source)
    same = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    try:
        named = os.lstat(name)
    except FileNotFoundError:
        raise _changed(name) from None
    if size != before.st_size or not same or (named.st_dev, named.st_ino) != (after.st_dev, after.st_ino):
        raise _changed(name)


def _changed(name: str) -> FileAccessError:
    return FileAccessError(
        "changed while it was read",
        errno=errno.EAGAIN,
        context=name,
        remedy="wait until whoever writes it is done, and write bundles to a temporary name and rename",
    )


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
