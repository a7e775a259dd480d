"""End on a signal as if nobody had caught it, but not before temporary files are removed and children are gone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Ended(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Holding:
    """How many ``held`` are open, and the signal that came meanwhile."""

    depth = 0
    pending = 0


@contextmanager
def unwinding() -> Iterator[None]:
    """Turn signals that end the process into Ended, so that whatever is open closes.

    A signal that was ignored before, as under nohup, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, None):
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Let a signal wait until the end of the block: for what must not stop between making a thing and knowing it."""
    _Holding.depth += 1
    try:
        yield
    finally:
        _Holding.depth -= 1
    if _Holding.pending and not _Holding.depth:
        number, _Holding.pending = _Holding.pending, 0
        raise Ended(number)


def end_by(number: int) -> int:
    """End this process by a signal, for make and shells look at how it ended; return its status if that is blocked."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _end(number: int, _frame: FrameType | None) -> None:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)  # a second one must not interrupt the removal
    if _Holding.depth:
        _Holding.pending = number
    else:
        raise Ended(number)
