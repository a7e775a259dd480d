"""The CPUs to compile for: this machine's, or a named one."""

import difflib
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uxdp_bundle.confined_child import llvmlite_folder, run_child
from uxdp_bundle.errors import LoweringError
from uxdp_bundle.manifest import to_json
from uxdp_bundle.native_code import MACHINES

from ..errors import ParameterError
from . import cache
from .compiler import Target
from .cpu_features import KERNEL_FLAGS, UNTOLD, host_features

NATIVE: Final = "native"
# What LLVM calls the CPU that has the machine's baseline and nothing else.
_GENERIC: Final = {"x86-64-generic": ("x86_64", "x86-64"), "aarch64-generic": ("aarch64", "generic")}
_WITH_MACHINE: Final = re.compile(r"(?P<machine>x86_64|aarch64)-(?P<cpu>[a-z0-9._-]+)")
_CPU_NAME: Final = re.compile(r"[a-z0-9._-]{1,64}")
_TIMEOUT_SECONDS: Final = 60
_SUGGESTIONS: Final = 5


@dataclass(frozen=True, slots=True)
class NamedTarget:
    """A CPU by name: what to compile for, and the features beyond the machine's baseline that the code may then use."""

    target: Target
    features: tuple[str, ...]


def named_target(name: str) -> NamedTarget:
    """Return the target of a CPU's name.

    :param name: ``native``; ``x86-64-generic`` or ``aarch64-generic``; a name of LLVM's such as ``x86-64-v3``,
        ``znver3`` or ``neoverse-n1``; or that behind ``x86_64-`` or ``aarch64-``
    :raises ParameterError: no CPU that can be compiled for; the message lists those that there are
    :raises UnsupportedFeatureError: llvmlite is not installed
    """
    wanted = host_target().cpu if name == NATIVE else name
    machines: tuple[str, ...] = (platform.machine(),) if name == NATIVE else MACHINES
    if wanted in _GENERIC:
        machine, wanted = _GENERIC[wanted]
        machines = (machine,)
    elif match := _WITH_MACHINE.fullmatch(wanted):
        machines, wanted = (match["machine"],), match["cpu"]
    known: dict[str, list[str]] = {}
    for machine in machines:
        known[machine], features = _ask(machine, wanted, name)
        if features is not None and (wanted != "generic" or len(machines) == 1):
            # "native" is what this machine has, not what others with such a CPU have: a hypervisor may hide features.
            told = host_features() if name == NATIVE else KERNEL_FLAGS[machine].keys()
            without = ",".join(f"-{feature}" for feature in features if feature not in told)
            used = sorted(feature for feature in features if feature in told)
            return NamedTarget(Target(machine, wanted, without), tuple(used))
    raise ParameterError(_unknown(name, known), context=f"CPU {name!r}")


def host_target(cache_directory: Path | None = None) -> Target:
    """Return this machine's CPU and features, as LLVM sees them.

    :param cache_directory: where to remember them: loading LLVM to ask takes longer than loading code
    :raises KeyFileError: the directory or the file is in the power of another user
    """
    if cache_directory is None:
        return _ask_for_host()
    key = cache.target_key()
    found = cache.load_target(cache_directory, key)
    if found is None:
        found = _ask_for_host()
        cache.save_target(cache_directory, key, found)
    return found


def _ask_for_host() -> Target:
    import llvmlite.binding as llvm

    return Target(platform.machine(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


def _ask(machine: str, cpu: str, name: str) -> tuple[list[str], list[str] | None]:
    """Return the CPUs of a machine, and the features of one; None if there is none of that name."""
    request = {
        "triple": f"{machine}-unknown-linux-gnu",
        "cpu": cpu if _CPU_NAME.fullmatch(cpu) else "",
        "features": [*KERNEL_FLAGS[machine], *UNTOLD[machine]],
    }
    package = Path(__file__).parent
    try:
        reply, _data, _log = run_child(
            package / "cpu_child.py",
            request,
            (),
            folders=(Path(to_json.__code__.co_filename).parent.parent, llvmlite_folder()),
            timeout_seconds=_TIMEOUT_SECONDS,
        )
    except LoweringError as cause:
        # LLVM ends the process for CPUs that have no 64-bit mode.
        raise ParameterError(f"cannot be compiled for: {cause.message}", context=f"CPU {name!r}") from cause
    return reply["cpus"], reply.get("features")


def _unknown(name: str, known: dict[str, list[str]]) -> str:
    every = [NATIVE, *_GENERIC, *(cpu for cpus in known.values() for cpu in cpus)]
    close = difflib.get_close_matches(name, every, _SUGGESTIONS)
    like = f" like it: {', '.join(dict.fromkeys(close))}" if close else ""
    lists = "; ".join(f"{machine}: {', '.join(cpus)}" for machine, cpus in known.items())
    return f"there is no such CPU{like}. There are {NATIVE}, {', '.join(_GENERIC)}, and for {lists}"
