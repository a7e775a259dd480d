"""What the options mean for DPDK devices: how many queues each has, and where its XDP_PASS leads."""

import errno
from typing import Final

from ..errors import ParameterError, PortError
from ..ports.dpdk import DpdkDevice, has_netdev
from .options import ServeOptions

_AF_XDP_CHUNK_BYTES: Final = 2048


def queues_of_each(options: ServeOptions, num_devices: int) -> int:
    """Return how many RX queues each device has: as asked for, else so many that every CPU that was named has one.

    :raises PortError: only some of a device's queues are asked for
    """
    if options.queues is None:
        return max(1, len(options.cpus) // num_devices) if options.cpus else 1
    if options.queues != tuple(range(len(options.queues))):
        raise PortError(
            errno.EINVAL,
            f"queues {', '.join(map(str, options.queues))}: all of a DPDK device's queues are served, from 0 on",
            context=options.dpdk[0].name,
            remedy="say how many: --queues 0-3",
        )
    return len(options.queues)


def chunk_bytes_of(device: DpdkDevice, options: ServeOptions) -> int:
    """Return how large a device's buffers are, in bytes.

    net_af_xdp lets the kernel write where its mbufs are, of at most a page with all that is in front of the frame.
    Source: drivers/net/af_xdp/rte_eth_af_xdp.c, xdp_umem_configure; net/xdp/xdp_umem.c, xdp_umem_reg
    """
    if device.is_af_xdp:
        return min(options.chunk_bytes, _AF_XDP_CHUNK_BYTES)
    return options.chunk_bytes


def stack_of(device: DpdkDevice, wanted: str) -> str:
    """Return where XDP_PASS of a device leads, "netdev", "tap" or "none".

    :raises ParameterError: the kernel has no interface on the device, and it was asked for
    """
    has_interface = has_netdev(device)
    if wanted == "netdev" and not has_interface:
        raise ParameterError(
            f"{device.name}: the kernel has no interface on it",
            context="--pass netdev",
            remedy="say --pass tap",
        )
    return ("netdev" if has_interface else "tap") if wanted == "auto" else wanted


def tap_name(device: DpdkDevice) -> str:
    """Return what the TAP interface of a device is called: as the device, if the kernel takes that for a name."""
    return device.name if not device.is_pci and len(device.name) < 16 else "uxdp%d"
