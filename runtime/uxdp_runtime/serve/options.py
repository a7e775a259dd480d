"""What ``uxdp serve`` is asked to do, whether by flags or by a file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import ParameterError
from ..ports.af_xdp_abi import TX_METHODS
from ..ports.attachment import Fallback

MODES: Final = ("native", "kernel")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """One service. ``queues`` None: all queues of each interface; ``cpus`` None: those that the process may use."""

    bundle: str
    interfaces: tuple[str, ...] = ()
    name: str = ""
    program: str = ""
    mode: str = "native"
    queues: tuple[int, ...] | None = None
    cpus: tuple[int, ...] | None = None
    tx: str = "auto"
    busy_poll: bool = False
    generic: bool | None = None
    replace: bool = False
    on_failure: Fallback = Fallback.PASS
    num_chunks: int = 4096
    chunk_bytes: int = 4096
    params: Mapping[str, int | bytes] = field(default_factory=dict)
    maps: str = ""
    assignments: tuple[str, ...] = ()
    metrics: str = ""
    sample_every: int = 0
    sample_file: str = ""
    perf_map: bool = False
    insecure_unsigned: bool = False

    def __post_init__(self) -> None:
        if not self.interfaces:
            raise ParameterError("no interface to serve on", context="--af-xdp", remedy="name one: --af-xdp eth0")
        if len(set(self.interfaces)) != len(self.interfaces):
            raise ParameterError("an interface is named twice", context="--af-xdp")
        if self.name and _NAME.fullmatch(self.name) is None:
            raise ParameterError(f"{self.name!r}, expected letters, digits, '_', '.' and '-'", context="--name")
        if self.mode not in MODES:
            raise ParameterError(f"{self.mode!r}, expected one of {', '.join(MODES)}", context="--mode")
        if self.mode == "kernel" and (self.sample_every or self.perf_map):
            raise ParameterError(
                "is about native code, and in the kernel mode there is none",
                context="--pcap-sample" if self.sample_every else "--perf-map",
                remedy="leave it out, or --mode kernel",
            )
        if self.mode == "kernel" and self.on_failure is not Fallback.PASS:
            raise ParameterError(
                "says what happens while native code is away, and in the kernel mode there is none",
                context="--on-failure",
                remedy="leave out one of --mode kernel and --on-failure",
            )
        if self.tx not in TX_METHODS:
            raise ParameterError(f"{self.tx!r}, expected one of {', '.join(TX_METHODS)}", context="--tx")
        if self.chunk_bytes not in (2048, 4096):
            raise ParameterError(f"{self.chunk_bytes}, expected 2048 or 4096", context="--chunk-bytes")
        if not 256 <= self.num_chunks <= 1 << 20:
            raise ParameterError(f"{self.num_chunks}, expected 256..{1 << 20} for each queue", context="--chunks")

    def usable_cpus(self) -> tuple[int, ...]:
        """Return the CPUs for the queues, in turn."""
        return self.cpus or tuple(sorted(os.sched_getaffinity(0)))


def parse_ranges(text: str, context: str) -> tuple[int, ...]:
    """Return the numbers of ``0-3,5``.

    :raises ParameterError: not of this form
    """
    numbers: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", piece.strip())
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise ParameterError(f"{text!r}, expected numbers and ranges such as 0-3,5", context=context)
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(numbers))
