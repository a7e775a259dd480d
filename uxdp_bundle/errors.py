"""Every error that uxdp raises on purpose.

Each carries the four things a reader needs: what went wrong, where, what was seen and what was wanted, and, when there
is one, the remedy. Hostile bytes never surface as struct.error, KeyError or UnicodeDecodeError.

The exit codes are part of the command line's interface; see README, "Exit codes".
"""

from typing import ClassVar


class UxdpError(Exception):
    """Base of all errors of uxdp.

    :param message: one sentence: what, where, seen, wanted
    :param context: the place inside the input, such as ``maps[2].value_size`` or a path
    :param remedy: what the user can do about it, one sentence or a command line
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, context: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.context = context
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.context}: {self.message}" if self.context else self.message


class FileAccessError(UxdpError, OSError):
    """A file could not be read or written, or is not the kind of file that is safe to use."""

    exit_code = 1

    def __init__(self, message: str, *, errno: int = 0, context: str = "", remedy: str = "") -> None:
        super().__init__(message, context=context, remedy=remedy)
        self.errno = errno


class BundleFormatError(UxdpError):
    """The bytes are not a well-formed bundle; ``context`` names the field."""

    exit_code = 3


class ObjectError(BundleFormatError):
    """The eBPF object (ELF, BTF or instructions) is malformed or not an XDP object."""


class TrustError(UxdpError):
    """The bundle is not trusted: unsigned, unknown signer, expired, revoked, out of scope or rolled back."""

    exit_code = 4


class SignatureError(TrustError):
    """A signature is malformed, wrong, or belongs to another bundle."""


class RevokedError(TrustError):
    """The bundle, or every key that signed it, has been revoked."""


class RollbackError(TrustError):
    """A bundle of this name with a higher security_version has been used before."""


class BindingError(UxdpError):
    """What the bundle claims, or the IR it carries, is not what its object holds."""

    exit_code = 5


class LoweringError(BindingError):
    """LLVM refused the IR, exceeded its limits, or died; ``log`` is what it printed."""

    def __init__(self, message: str, *, log: str = "", context: str = "", remedy: str = "") -> None:
        super().__init__(message, context=context, remedy=remedy)
        self.log = log


class KeyFileError(UxdpError):
    """A key file or trust file cannot be used: permissions, owner, syntax or passphrase."""

    exit_code = 6


class InstalledError(UxdpError):
    """No installed network function of that name, or its files are not those that were installed."""

    exit_code = 7


class UnsupportedFeatureError(UxdpError):
    """This machine, kernel or library lacks something; ``name`` says what."""

    exit_code = 8

    def __init__(self, name: str, reason: str, *, context: str = "", remedy: str = "") -> None:
        super().__init__(f"{name}: {reason}", context=context, remedy=remedy)
        self.name = name
        self.reason = reason
