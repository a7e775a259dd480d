"""What can go wrong between a bundle and the kernel; the errors of the bundle itself are in uxdp_bundle.errors.

A failed system call is also an OSError: ``errno`` is what the kernel said.
"""

import errno as errno_codes
import os
from collections.abc import Sequence
from typing import ClassVar, Final

from uxdp_bundle.btf import SourceLine
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError

# include/linux/errno.h: not meant for user space, but bpf(2) returns it, and the C library has no words for it.
ENOTSUPP: Final = 524


class ParameterError(UxdpError):
    """The caller names a program, constant, map or frame that this bundle or the kernel cannot take."""

    exit_code: ClassVar[int] = 2


class BpfError(UxdpError, OSError):
    """A bpf(2) call, or a call of libbpf, failed; ``errno`` says how."""

    exit_code: ClassVar[int] = 1

    def __init__(self, errno: int, message: str, *, context: str = "", remedy: str = "") -> None:
        super().__init__(message, context=context, remedy=remedy)
        self.errno = errno


class MissingCapabilityError(UnsupportedFeatureError, PermissionError):
    """The kernel refused because this process lacks capabilities; ``missing`` names them."""

    def __init__(self, missing: Sequence[str], reason: str, *, context: str = "", remedy: str = "") -> None:
        super().__init__(" and ".join(missing), reason, context=context, remedy=remedy)
        self.missing = tuple(missing)
        self.errno = errno_codes.EPERM


class PortError(UxdpError, OSError):
    """A port cannot be opened, or stopped working; ``errno`` says how, ``context`` is the interface."""

    exit_code: ClassVar[int] = 10

    def __init__(self, errno: int, message: str, *, context: str = "", remedy: str = "") -> None:
        super().__init__(message, context=context, remedy=remedy)
        self.errno = errno


class LoadError(BpfError):
    """The kernel or libbpf refused the object; ``messages`` are libbpf's warnings."""

    exit_code: ClassVar[int] = 9

    def __init__(
        self, errno: int, message: str, *, messages: Sequence[str] = (), context: str = "", remedy: str = ""
    ) -> None:
        super().__init__(errno, message, context=context, remedy=remedy)
        self.messages = tuple(messages)


class VerifierError(LoadError):
    """The kernel's verifier refused a program.

    ``log`` is everything that the verifier wrote, ``reason`` what of it says why, ``instruction`` the index of the
    instruction that it stopped at (None if it got to none) and ``source`` that instruction's line, if known.
    """

    def __init__(
        self,
        errno: int,
        program: str,
        reason: str,
        *,
        log: str,
        instruction: int | None = None,
        source: SourceLine | None = None,
        messages: Sequence[str] = (),
        context: str = "",
        remedy: str = "",
    ) -> None:
        place = "" if instruction is None else f" at instruction {instruction}"
        if source is not None:
            place += f", {source}"
        message = f"the kernel's verifier refused program {program}{place}: {reason}"
        super().__init__(errno, message, messages=messages, context=context, remedy=remedy)
        self.program = program
        self.reason = reason
        self.log = log
        self.instruction = instruction
        self.source = source


def errno_text(number: int) -> str:
    """Return what an error number means and the kernel's symbol for it, such as ``Invalid argument (EINVAL)``."""
    if number == ENOTSUPP:
        return "Operation not supported (ENOTSUPP)"
    # Python calls this one ENOTSUP, which is no word of the kernel's.
    symbol = "EOPNOTSUPP" if number == errno_codes.EOPNOTSUPP else errno_codes.errorcode.get(number, str(number))
    return f"{os.strerror(number)} ({symbol})"
