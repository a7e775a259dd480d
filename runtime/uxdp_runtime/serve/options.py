"""What ``uxdp serve`` is asked to do, whether by flags or by a file."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..errors import ParameterError
from ..ports.af_xdp_abi import TX_METHODS
from ..ports.attachment import Fallback
from ..ports.dpdk import DpdkDevice, assign_ifindexes, check_devices
from ..ports.dpdk_abi import POWERS

MODES: Final = ("native", "kernel")
STACKS: Final = ("auto", "tap", "netdev", "none")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """One service. ``queues`` None: all queues of each interface; ``cpus`` None: those that the process may use."""

    bundle: str
    interfaces: tuple[str, ...] = ()
    dpdk: tuple[DpdkDevice, ...] = ()
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
    eal: tuple[str, ...] = ()
    ifindexes: tuple[str, ...] = ()
    stack: str = "auto"
    power: str = "poll"
    insecure_unsigned: bool = False

    def __post_init__(self) -> None:
        if not self.interfaces and not self.dpdk:
            raise ParameterError(
                "no interface to serve on",
                context="--af-xdp",
                remedy="name one: --af-xdp eth0, or a device: --dpdk 0000:18:00.0",
            )
        check_devices(self.dpdk)
        self._check_port()
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

    def _check_port(self) -> None:
        """Refuse what is said of another port than the one that is served on."""
        if self.interfaces and self.dpdk:
            raise ParameterError("one service is on AF_XDP or on DPDK", context="--dpdk", remedy="start two services")
        if self.stack not in STACKS:
            raise ParameterError(f"{self.stack!r}, expected one of {', '.join(STACKS)}", context="--pass")
        if self.power not in POWERS:
            raise ParameterError(f"{self.power!r}, expected one of {', '.join(POWERS)}", context="--power")
        of_af_xdp = {
            "--mode kernel": self.mode == "kernel",
            "--tx": self.tx != "auto",
            "--busy-poll": self.busy_poll,
            "--generic": self.generic is not None,
            "--replace": self.replace,
            "--on-failure": self.on_failure is not Fallback.PASS,
        }
        of_dpdk = {
            "--eal": bool(self.eal),
            "--ifindex": bool(self.ifindexes),
            "--pass": self.stack != "auto",
            "--power": self.power != "poll",
        }
        for name, is_said in (of_af_xdp if self.dpdk else of_dpdk).items():
            if is_said:
                where = "DPDK: the kernel has no part in it" if self.dpdk else "AF_XDP"
                raise ParameterError(f"is not for {where}", context=name, remedy="leave it out")

    def port_names(self) -> tuple[str, ...]:
        """Return the names of what is served on."""
        return self.interfaces or tuple(device.name for device in self.dpdk)

    def device_ifindexes(self) -> dict[str, int] | None:
        """Return by which ifindex programs know DPDK's devices; None: it is the kernel's interfaces that are served.

        :raises ParameterError: what is given does not fit the devices
        """
        return assign_ifindexes(self.dpdk, self.ifindexes) if self.dpdk else None

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
