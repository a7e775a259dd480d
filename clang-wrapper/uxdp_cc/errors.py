"""What uxdp-cc refuses, beyond what clang itself reports."""

from typing import ClassVar

from uxdp_bundle.errors import UxdpError


class CompileError(UxdpError):
    """clang failed; ``diagnostics`` is its standard error verbatim if it was captured, ``status`` its exit status."""

    def __init__(self, status: int, diagnostics: str) -> None:
        super().__init__(f"clang failed with exit status {status}")
        self.status = status
        self.diagnostics = diagnostics


class SourceError(UxdpError):
    """The source compiles, but cannot become a bundle; ``context`` is file:line where that is known."""


class ToolchainError(UxdpError):
    """There is no usable clang."""


class UsageError(UxdpError):
    """The command line asks for something that uxdp-cc cannot do."""

    exit_code: ClassVar[int] = 1  # as clang's driver for wrong arguments


class ClangUsageError(UsageError):
    """A mistake in clang's own options, which clang reports in its own words."""
