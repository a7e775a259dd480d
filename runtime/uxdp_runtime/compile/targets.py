"""The CPUs to compile for: this machine's, or a named one."""

import platform
import re
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError

from .compiler import Target

# Generic levels (x86-64 psABI, "Micro-Architecture Levels") and what LLVM calls them.
_NAMED: Final = {
    "x86-64": ("x86_64", "x86-64"),
    "x86-64-v2": ("x86_64", "x86-64-v2"),
    "x86-64-v3": ("x86_64", "x86-64-v3"),
    "x86-64-v4": ("x86_64", "x86-64-v4"),
    "aarch64-generic": ("aarch64", "generic"),
}
_CPU_NAME: Final = re.compile(r"(?P<machine>x86_64|aarch64)-(?P<cpu>[a-z0-9._-]+)")


def named_target(name: str) -> Target:
    """Return the target of a CPU name: a generic level, or ``x86_64-`` or ``aarch64-`` and LLVM's name of a CPU.

    :raises UnsupportedFeatureError: no machine that there is a native library for
    """
    if name in _NAMED:
        machine, cpu = _NAMED[name]
        return Target(machine, cpu, "")
    match = _CPU_NAME.fullmatch(name)
    if match is None:
        raise UnsupportedFeatureError(name, f"not a CPU that can be compiled for, expected {', '.join(_NAMED)} or such")
    return Target(match["machine"], match["cpu"], "")


def host_target() -> Target:
    """Return this machine's CPU and features, as LLVM sees them."""
    import llvmlite.binding as llvm

    return Target(platform.machine(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
