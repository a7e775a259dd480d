"""What uxdp-cc says on standard error, beside clang."""

import sys

from uxdp_bundle.errors import UxdpError


def report(error: UxdpError) -> int:
    """Say what failed, where, and what to do about it; return the exit status."""
    where = f"{error.context}: " if error.context else "uxdp-cc: "
    sys.stderr.write(f"{where}error: {error.message}\n")
    if error.remedy:
        sys.stderr.write(f"  → {error.remedy}\n")
    log = getattr(error, "log", "")
    if log:
        sys.stderr.write(log if log.endswith("\n") else f"{log}\n")
    return 1


def say(text: str) -> None:
    """Say something that is no failure."""
    sys.stderr.write(f"uxdp-cc: {text}\n")
