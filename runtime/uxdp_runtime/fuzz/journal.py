"""What was run, written down before it is run: it is still there if that ends the process."""

import json
import os
from collections.abc import Sequence
from tempfile import TemporaryFile

from ..steps import Step
from .case import decoded, encoded


class Journal:
    """Steps in a file that has no name, a line for each input. Close it, or use it as a context manager.

    A fork has the same file.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._file = TemporaryFile(buffering=0)  # noqa: SIM115

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget it all."""
        self._file.close()

    def clear(self) -> None:
        """Begin anew, from fresh state."""
        self._file.seek(0)
        self._file.truncate()

    def add(self, steps: Sequence[Step]) -> None:
        """Write down steps that are taken next."""
        self._file.write(json.dumps([encoded(step) for step in steps]).encode() + b"\n")

    def read(self) -> tuple[Step, ...]:
        """Return all steps since the beginning."""
        data = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0)
        return tuple(decoded(one) for line in data.splitlines() for one in json.loads(line))
