"""Write a bundle where clang would write an object: whole or not at all."""

import errno
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from uxdp_bundle.errors import FileAccessError

STDOUT: Final = "-"


def write_output(output: str, image: bytes) -> None:
    """Write a file image to a path, or to standard output for ``-``.

    A regular file is replaced by a temporary one beside it, so that a failure leaves the old one untouched. Anything
    else, such as /dev/null or a pipe, is written to.

    :raises FileAccessError: it cannot be written
    """
    try:
        if output == STDOUT:
            sys.stdout.buffer.write(image)
            sys.stdout.buffer.flush()
        elif _is_special(Path(output)):
            Path(output).write_bytes(image)
        else:
            _replace(Path(output), image)
    except OSError as cause:
        raise FileAccessError(f"cannot be written: {cause.strerror}", errno=cause.errno or 0, context=output) from cause


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _replace(path: Path, image: bytes) -> None:
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    temporary = path.with_name(f".uxdp-cc.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(image)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
