"""CPUs: how many there may ever be, which is the number of values that an element of a per-CPU map has; their nodes."""

import re
from functools import cache
from pathlib import Path
from typing import Final

from ..errors import BpfError

_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")
_NODES: Final = "/sys/devices/system/cpu/cpu{}"
_NODE: Final = re.compile(r"node(\d+)")
_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")


def parse_cpu_list(text: str) -> int:
    """Return the number of CPUs in a list such as ``0-3,8``.

    :raises ValueError: not such a list
    """
    count = 0
    for piece in text.strip().split(","):
        match = _RANGE.fullmatch(piece)
        if match is None:
            raise ValueError(f"{text!r} is no list of CPUs")
        count += int(match[2] or match[1]) - int(match[1]) + 1
    return count


@cache
def num_possible_cpus() -> int:
    """Return the number of CPUs that the kernel keeps per-CPU memory for; it does not change while it runs.

    A per-CPU value has one slot for each of them, without gaps, whatever their numbers.
    Source: kernel/bpf/arraymap.c, bpf_percpu_array_copy; libbpf, libbpf_num_possible_cpus
    """
    try:
        return parse_cpu_list(_POSSIBLE.read_text())
    except OSError as cause:
        raise BpfError(cause.errno or 0, cause.strerror or "unreadable", context=str(_POSSIBLE)) from cause


def numa_node(cpu: int) -> int:
    """Return the NUMA node of a CPU, 0 on a machine that has but one."""
    try:
        matches = [_NODE.fullmatch(path.name) for path in Path(_NODES.format(cpu)).iterdir()]
    except OSError:
        return 0
    return next((int(match[1]) for match in matches if match is not None), 0)
