"""Why types of maps that XDP programs may use have no native implementation, and will have none.

SUPPORT.md says the same; a test holds both against the native library.
"""

from typing import Final

UNSUPPORTED: Final[dict[str, str]] = {
    "cgroup_array": "it tells of the cgroup of the task that a frame interrupts, and native code interrupts none",
    "sockmap": "a lookup gives a socket of the kernel's own, whose memory native code cannot read",
    "sockhash": "a lookup gives a socket of the kernel's own, whose memory native code cannot read",
    "task_storage": "native code has no tasks and cgroups to keep something for",
    "cgrp_storage": "native code has no tasks and cgroups to keep something for",
    "arena": "programs follow any address in it, and only the kernel's page tables keep them inside",
}


def reason_of(kind: str, name: str) -> str:
    """Return why a map of a type, called so, has no native implementation."""
    return UNSUPPORTED.get(kind, f"no native implementation for the definition of map {name}")
