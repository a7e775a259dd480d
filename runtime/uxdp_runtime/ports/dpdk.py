"""What DPDK is told: which devices, by which names programs know them, and how EAL begins.

EAL is begun by each data process for itself (serve.dpdk_port). It leaves nothing behind: with huge pages everything is
in memory that nobody else sees (``--in-memory``); without, DPDK wants its older memory layout, which that excludes, and
only the runtime directory's files are left out (``--no-shconf``).

References: https://doc.dpdk.org/guides-22.11/linux_gsg/linux_eal_parameters.html
"""

import errno
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import ParameterError, PortError
from .dpdk_abi import NAME_BYTES, PORTS

_PCI: Final = re.compile(r"(?:[0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")
_VDEV: Final = re.compile(r"[a-z][A-Za-z0-9_]*")
# Drivers that are a way to a kernel's interface, which their devargs name.
_OF_INTERFACES: Final = ("net_af_xdp", "net_af_packet")
_MAPPING: Final = re.compile(r"(\d{1,9})=(.+)")
_HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")
_USUAL: Final = (
    *("EAL: Detected", "EAL: Multi-process", "EAL: Selected IOVA", "EAL: VFIO support", "EAL: Physical addresses"),
    "rte_pmd_memif_probe(): Failed to register mp action callback",
)
_SPARE_MIB: Final = 48  # for rings, queues and whatever drivers allocate
_MBUF_BYTES: Final = 512  # struct rte_mbuf, headroom, what a mempool keeps of each, and alignment


@dataclass(frozen=True, slots=True)
class DpdkDevice:
    """One device: a PCI address, or a virtual device; ``devargs`` is what EAL is told, beginning with the name."""

    name: str
    devargs: str
    is_pci: bool

    @property
    def is_af_xdp(self) -> bool:
        """Whether it is one of the kernel's interfaces, by AF_XDP."""
        return self.name.startswith("net_af_xdp")


def parse_pci(text: str) -> tuple[DpdkDevice, ...]:
    """Return the devices of ``0000:18:00.0,0000:18:00.1``.

    :raises ParameterError: not of this form
    """
    devices = []
    for item in text.split(","):
        if _PCI.fullmatch(item.strip()) is None:
            raise ParameterError(
                f"{item!r}, expected a PCI address such as 0000:18:00.0",
                context="--dpdk",
                remedy="see dpdk-devbind.py --status; virtual devices go by --dpdk-vdev",
            )
        address = item.strip().lower()
        name = address if address.count(":") == 2 else f"0000:{address}"
        devices.append(DpdkDevice(name, name, is_pci=True))
    return tuple(devices)


def parse_vdev(text: str) -> DpdkDevice:
    """Return the device of devargs such as ``net_memif0,role=client,id=1``.

    :raises ParameterError: not of this form
    """
    name = text.partition(",")[0]
    if _VDEV.fullmatch(name) is None or len(name) >= NAME_BYTES:
        raise ParameterError(
            f"{text!r}, expected a driver's name, a number and its arguments, such as net_memif0,role=client",
            context="--dpdk-vdev",
        )
    return DpdkDevice(name, text, is_pci=False)


def check_devices(devices: Sequence[DpdkDevice]) -> None:
    """Refuse devices that are named twice, and more than there is room for.

    :raises ParameterError: the first such device
    """
    names = [device.name for device in devices]
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"{name} is named twice", context="--dpdk")
    if len(devices) > PORTS:
        raise ParameterError(f"{len(devices)} devices, at most {PORTS} can be served", context="--dpdk")


def assign_ifindexes(devices: Sequence[DpdkDevice], given: Sequence[str] = ()) -> dict[str, int]:
    """Return by which ifindex programs know each device.

    It is what was given; else that of the kernel's interface, if the device has one (bifurcated drivers, net_af_xdp);
    else the first of 1, 2, … that is not taken yet.

    :param given: ``2=net_memif0``, by device
    :raises ParameterError: not of this form, no such device, or an ifindex or device twice
    """
    assigned: dict[str, int] = {}
    names = {device.name for device in devices}
    for text in given:
        match = _MAPPING.fullmatch(text)
        if match is None or int(match[1]) == 0:
            raise ParameterError(f"{text!r}, expected IFINDEX=DEVICE, such as 2=net_memif0", context="--ifindex")
        if match[2] not in names:
            raise ParameterError(
                f"{match[2]!r} is no device that is served", context="--ifindex", remedy=f"known: {', '.join(names)}"
            )
        if match[2] in assigned or int(match[1]) in assigned.values():
            raise ParameterError(f"{text!r}: given twice", context="--ifindex")
        assigned[match[2]] = int(match[1])
    for device in devices:
        known = 0 if device.name in assigned else kernel_ifindex(device)
        if known and known not in assigned.values():
            assigned[device.name] = known
    following = 1
    for device in devices:
        if device.name not in assigned:
            while following in assigned.values():
                following += 1
            assigned[device.name] = following
    return assigned


def kernel_ifindex(device: DpdkDevice) -> int:
    """Return the ifindex of the kernel's interface on a device; 0 if it has none."""
    name = ""
    if device.is_pci:
        folder = Path("/sys/bus/pci/devices") / device.name / "net"
        name = next((path.name for path in sorted(folder.glob("*"))), "")
    elif device.name.startswith(_OF_INTERFACES):
        name = next((item[6:] for item in device.devargs.split(",") if item.startswith("iface=")), "")
    try:
        return socket.if_nametoindex(name) if name else 0
    except OSError:
        return 0


def has_netdev(device: DpdkDevice) -> bool:
    """Return whether the kernel has an interface on a device while DPDK drives it, into which frames can be passed.

    Not net_af_packet: the kernel's stack has its own copy of each frame there.
    """
    return kernel_ifindex(device) != 0 and not device.name.startswith("net_af_packet")


def needed_mib(num_mbufs: int, chunk_bytes: int) -> int:
    """Return how much memory EAL needs for all buffers, and what goes with them."""
    return (num_mbufs * (chunk_bytes + _MBUF_BYTES) >> 20) + 1 + _SPARE_MIB


def free_huge_mib() -> int:
    """Return how much memory is free in huge pages."""
    total = 0
    for folder in _HUGE_PAGES.glob("hugepages-*kB"):
        try:
            total += int((folder / "free_hugepages").read_text()) * int(folder.name[10:-2])
        except (OSError, ValueError):
            continue
    return total >> 10


@dataclass(frozen=True, slots=True)
class EalPlan:
    """EAL's arguments, without the program's name; and why there are no huge pages, or ""."""

    arguments: tuple[str, ...]
    no_huge_reason: str


def plan_eal(
    devices: Sequence[DpdkDevice], cpus: Iterable[int], memory_mib: int, extra: Sequence[str], *, huge_mib: int
) -> EalPlan:
    """Return how EAL is begun.

    :param cpus: those that the process may use; the main thread may run on all of them
    :param memory_mib: how much is needed
    :param extra: the user's own arguments, which come last
    :param huge_mib: how much memory is free in huge pages
    """
    arguments = ["--lcores", f"0@({','.join(map(str, sorted(set(cpus))))})", "--no-telemetry"]
    reason = ""
    if any(word in ("--no-huge", "--in-memory", "-m", "--socket-mem", "--huge-dir") for word in extra):
        pass  # the user says
    elif huge_mib >= memory_mib:
        arguments.append("--in-memory")
    else:
        reason = f"{memory_mib} MiB are needed, {huge_mib} MiB are free in huge pages"
        arguments += ["--no-huge", "-m", str(memory_mib), "--no-shconf"]
    if not any(device.is_pci for device in devices):
        arguments.append("--no-pci")
    for device in devices:
        arguments += ["-a" if device.is_pci else "--vdev", device.devargs]
    return EalPlan((*arguments, *extra), reason)


def eal_error(number: int, log: str, devices: Sequence[DpdkDevice]) -> PortError:
    """Return what EAL's refusal means, and what to do about it.

    :param log: what EAL wrote
    """
    said = last_words(log)
    context = ", ".join(device.name for device in devices)
    remedies: Mapping[str, str] = {
        "Cannot find device": "is the name that of a driver and a number, such as net_memif0? see dpdk-devbind.py -s",
        "failed to parse device": "is the name that of a driver and a number, such as net_memif0?",
        "No free": "reserve huge pages (sysctl vm.nr_hugepages), or serve fewer queues or chunks",
        "Cannot get hugepage": "mount hugetlbfs, or say --eal --no-huge",
        "Cannot init memory": "reserve huge pages (sysctl vm.nr_hugepages), or serve fewer queues or chunks",
        "VFIO": "bind the device to vfio-pci: dpdk-devbind.py -b vfio-pci ADDRESS",
        "invalid option": "see dpdk-testpmd --help for what --eal can say",
        "unavailable": "name CPUs that this process may use: --lcores",
        "unrecognized option": "see dpdk-testpmd --help for what --eal can say",
        "FATAL: Invalid 'command line' arguments": "see dpdk-testpmd --help for what --eal can say",
    }
    remedy = next((text for words, text in remedies.items() if words in log), "see what DPDK wrote above")
    return PortError(number or errno.EIO, f"DPDK does not start: {said}", context=context, remedy=remedy)


def last_words(log: str, count: int = 3) -> str:
    """Return the last lines of EAL's log that say something, on one line."""
    return "; ".join(_telling(log)[-count:]) or "it does not say why"


def refusal_of_device(device: DpdkDevice, number: int, said: str, log: str) -> PortError:
    """Return why a device cannot be opened, and what to do about it.

    :param said: what our own code found
    :param log: what EAL and the driver wrote
    """
    remedies = {
        errno.EBUSY: "stop whoever has it",
        errno.ENOMEM: "serve fewer queues or chunks, or reserve huge pages: sysctl vm.nr_hugepages",
        errno.ENOBUFS: "give each queue more chunks: --chunks",
        errno.ERANGE: "serve fewer queues: --queues",
        errno.EOPNOTSUPP: "say --power pause",
        errno.ENODEV: "is it bound to a driver that DPDK can use? see dpdk-devbind.py --status",
    }
    if not device.is_pci:
        remedies[errno.ENODEV] = "does its driver take these arguments? is what they name free? see DPDK's nics guide"
    words = "; ".join(_telling(log)[-3:])
    return PortError(
        number,
        f"{said} ({words})" if words else said,
        context=device.name,
        remedy=remedies.get(number, "see what DPDK's documentation of the driver says"),
    )


def _telling(log: str) -> list[str]:
    lines = dict.fromkeys(line.strip() for line in log.splitlines())
    return [line for line in lines if line and not line.startswith(_USUAL)]
