"""Which capabilities this process has, and which of those that loading XDP programs needs it has not.

The kernel checks capabilities, never the user id. Since Linux 5.8 CAP_BPF lets create maps and load programs,
CAP_NET_ADMIN lets load those that belong to the network, XDP among them, and CAP_PERFMON permits what could leak
kernel addresses, such as subtracting one pointer from another, which most programs do. CAP_SYS_ADMIN stands for all
three, and is what older kernels want. They count only if held in the initial user namespace: root of a rootless
container has none, whatever its status file says.

``kernel.unprivileged_bpf_disabled`` never matters here: even when it is 0, only socket filters may be loaded by anyone.

References: capabilities(7); kernel/bpf/syscall.c, bpf_prog_load; Documentation/admin-guide/sysctl/kernel.rst
"""

from pathlib import Path
from typing import Final

from ..errors import MissingCapabilityError

# include/uapi/linux/capability.h
CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
TO_LOAD: Final = ("CAP_BPF", "CAP_NET_ADMIN")
_STATUS = Path("/proc/self/status")
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
_UID_MAP = Path("/proc/self/uid_map")
_UNPRIVILEGED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
# The uid_map of the initial user namespace: every id stands for itself.
_INITIAL_UID_MAP = ["0", "0", "4294967295"]


def parse_effective(status: str) -> frozenset[str]:
    """Return those of CAPABILITIES that the text of a /proc/PID/status says are effective."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            mask = int(value, 16)
            return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)
    return frozenset()


def missing_to_load(held: frozenset[str], *, last_capability: int) -> tuple[str, ...]:
    """Return the capabilities that are needed to load XDP programs and are not among those ``held``.

    :param last_capability: the highest number that the kernel knows: Linux 5.7 and older have no CAP_BPF
    """
    if "CAP_SYS_ADMIN" in held:
        return ()
    if last_capability < CAPABILITIES["CAP_BPF"]:
        return ("CAP_SYS_ADMIN",)
    return tuple(name for name in TO_LOAD if name not in held)


def held_capabilities() -> frozenset[str]:
    """Return the effective ones of CAPABILITIES of this process."""
    return parse_effective(_STATUS.read_text())


def lacks_perfmon() -> bool:
    """Return whether the verifier is stricter with this process than it has to be."""
    return not held_capabilities() & {"CAP_PERFMON", "CAP_SYS_ADMIN"}


def explain_refusal(what: str, *, context: str = "") -> MissingCapabilityError | None:
    """Explain an EPERM by what this process lacks; None if it lacks nothing.

    :param what: what was refused, such as "loading XDP programs"
    """
    missing = missing_to_load(held_capabilities(), last_capability=int(_LAST_CAPABILITY.read_text()))
    if missing:
        reason = f"missing, {what} needs {' and '.join(TO_LOAD)}"
        if _UNPRIVILEGED.exists():
            reason += f" (kernel.unprivileged_bpf_disabled is {_UNPRIVILEGED.read_text().strip()})"
        remedy = "run it as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        return MissingCapabilityError(missing, reason, context=context, remedy=remedy)
    if _UID_MAP.read_text().split() != _INITIAL_UID_MAP:
        reason = f"{what} needs them in the initial user namespace, this process has them in another"
        remedy = "run it outside of the rootless container or user namespace"
        return MissingCapabilityError(TO_LOAD, reason, context=context, remedy=remedy)
    return None
