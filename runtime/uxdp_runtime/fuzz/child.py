"""Do something in a child process: native code that crashes ends that, and not the command.

The child is a fork, so it has all that was prepared, and sends what came of it through a pipe.
"""

import ctypes
import os
import pickle
import signal
from collections.abc import Callable
from typing import Final, TypeVar

from uxdp_bundle.errors import UxdpError

_T = TypeVar("_T")

# How code ends a process; other signals come from outside.
_CRASHES: Final = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS}
)
_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h


class CrashError(UxdpError):
    """Code ended the process that ran it; ``signal`` says how."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"native code ended its process by {number.name}")
        self.signal = number


class ChildError(UxdpError):
    """The child ended, or was ended, without an answer."""


def in_child(work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns in a child process, or raise what it raises there.

    :raises CrashError: a signal such as SIGSEGV ended the child
    :raises ChildError: something else did
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as answers:
            answer = answers.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    _pid, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if -code in _CRASHES:
        raise CrashError(signal.Signals(-code))
    if code != 0:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
        raise ChildError(f"the process that ran native code ended {how}")
    is_result, *rest = pickle.loads(answer)  # noqa: S301  # a fork's own
    if is_result:
        result: _T = rest[0]
        return result
    raise _raised(*rest)


def _answer(work: Callable[[], object], writing: int) -> None:
    """Do the work in the child, send what comes of it, and end."""
    code = 1
    try:
        # Whoever waits for the answer may be killed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        try:
            answer = pickle.dumps((True, work()))
        except BaseException as error:
            answer = pickle.dumps((False, type(error), error.args, vars(error), getattr(error, "errno", None)))
        with os.fdopen(writing, "wb") as answers:
            answers.write(answer)
        code = 0
    finally:
        # Nothing that belongs to the parent is flushed or closed a second time.
        os._exit(code)


def _raised(
    kind: type[BaseException], arguments: tuple[object, ...], fields: dict[str, object], errno: int | None
) -> BaseException:
    """Return an exception as it was in the child, whatever its class wants to be made of."""
    error = kind.__new__(kind)
    error.args = arguments
    vars(error).update(fields)
    if isinstance(error, OSError):
        error.errno = errno
    return error
