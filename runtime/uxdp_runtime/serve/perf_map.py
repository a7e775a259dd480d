"""Names for perf: which function of compiled code is where in the data process, as perf looks them up.

perf finds no symbols in memory that no file is mapped to, and looks into /tmp/perf-PID.map then: lines of start, size
and name, the numbers in hexadecimal. Code is loaded before a data process is forked, so it lies where it does here.

/tmp is everybody's: the file is created anew, never opened through what somebody has put there.

Reference: Linux, tools/perf/Documentation/jit-interface.txt
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..compile.loader import Function

_FOLDER: Final = Path("/tmp")  # noqa: S108  # where perf looks


def format_map(functions: Iterable[Function]) -> str:
    """Return the lines, in the order of addresses; functions without a size have none."""
    lines = [
        f"{function.address:x} {function.size_bytes:x} {function.name}\n"
        for function in sorted(functions, key=lambda function: function.address)
        if function.size_bytes
    ]
    return "".join(lines)


class PerfMap:
    """The file of the process that serves now. Close it to remove the file."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        """Write nothing yet."""
        self._folder = folder
        self._pid: int | None = None

    @property
    def path(self) -> Path | None:
        """The file that is there now."""
        return None if self._pid is None else self._folder / f"perf-{self._pid}.map"

    def follow(self, pid: int | None, functions: Iterable[Function]) -> bool:
        """Write the file of a process, if it is another one than before, and remove that one's; say whether.

        :param pid: the process; None: there is none at present, and nothing is done
        :raises OSError: the file cannot be written; it is not tried again for this process
        """
        if pid is None or pid == self._pid:
            return False
        self.close()
        path = self._folder / f"perf-{pid}.map"
        self._pid = pid
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w") as file:
            file.write(format_map(functions))
        return True

    def close(self) -> None:
        """Remove the file."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()
        self._pid = None
