"""What a port has to know of a network interface, in this process's network namespace.

By ioctl, which works wherever sockets do: /sys shows the namespace that it was mounted in.

References: netdevice(7); include/uapi/linux/ethtool.h, struct ethtool_channels
"""

import ctypes
import errno
import fcntl
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import PortError

_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFMTU, _SIOCGIFHWADDR, _SIOCETHTOOL = 0x8910, 0x8913, 0x8921, 0x8927, 0x8946
_IFNAMSIZ: Final = 16
_IFREQ_BYTES: Final = 40
_IFF_UP: Final = 1
_ETHTOOL_GCHANNELS: Final = 0x3C
_CHANNELS = struct.Struct("=9I")  # cmd, max and current counts of rx, tx, other, combined
_ETHTOOL_GDRVINFO: Final = 0x3
_DRIVER_INFO = struct.Struct("=I32s32s32s32s32s12s5I")  # cmd, driver, versions, bus_info, …: struct ethtool_drvinfo
_BUS_INFO: Final = 4
_PCI_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_PCI_DEVICES: Final = Path("/sys/bus/pci/devices")  # of all network namespaces


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as it was when it was looked at. ``num_rx_queues`` counts those that packets arrive on.

    ``numa_node`` is that of its device; -1 if it has none.
    """

    name: str
    index: int
    mtu: int
    mac: bytes
    is_up: bool
    num_rx_queues: int
    numa_node: int = -1


def interface(name: str) -> Interface:
    """Look at an interface.

    :raises PortError: ENODEV if there is none of that name
    """
    try:
        index = socket.if_nametoindex(name)
    except OSError as cause:
        known = ", ".join(found for _index, found in socket.if_nameindex()) or "none"
        raise PortError(errno.ENODEV, f"no such interface, but {known}", context=name, remedy="see ip link") from cause
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            (flags,) = struct.unpack_from("=H", _ioctl(control, _SIOCGIFFLAGS, name), _IFNAMSIZ)
            (mtu,) = struct.unpack_from("=i", _ioctl(control, _SIOCGIFMTU, name), _IFNAMSIZ)
            mac = _ioctl(control, _SIOCGIFHWADDR, name)[_IFNAMSIZ + 2 : _IFNAMSIZ + 8]
        except OSError as cause:
            number = cause.errno or errno.ENODEV
            raise PortError(number, f"cannot be looked at: {cause.strerror}", context=name) from cause
        is_up, num_rx_queues = bool(flags & _IFF_UP), _num_rx_queues(control, name)
        return Interface(name, index, mtu, mac, is_up, num_rx_queues, numa_node(_bus_info(control, name)))


def interface_at(index: int) -> Interface | None:
    """Look at the interface of an index, whatever it is called by now; None if there is none."""
    try:
        found = interface(socket.if_indextoname(index))
    except PortError as error:
        if error.errno != errno.ENODEV:
            raise
        return None
    except OSError:
        return None
    return found if found.index == index else None


def _ioctl(control: socket.socket, request: int, name: str) -> bytes:
    encoded = name.encode().ljust(_IFNAMSIZ, b"\0")[:_IFNAMSIZ]
    return fcntl.ioctl(control.fileno(), request, encoded.ljust(_IFREQ_BYTES, b"\0"))


def _num_rx_queues(control: socket.socket, name: str) -> int:
    """Ask the driver; one that does not know channels has one queue, as those without ethtool's have."""
    channels = ctypes.create_string_buffer(_CHANNELS.pack(_ETHTOOL_GCHANNELS, *(0,) * 8), _CHANNELS.size)
    request = name.encode().ljust(_IFNAMSIZ, b"\0")[:_IFNAMSIZ] + struct.pack("=Q", ctypes.addressof(channels))
    try:
        fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request.ljust(_IFREQ_BYTES, b"\0"))
    except OSError as refused:
        if refused.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise PortError(refused.errno or errno.EIO, "cannot count its queues", context=name) from refused
        return 1
    counts = _CHANNELS.unpack(channels.raw)
    return max(1, int(counts[5]) + int(counts[8]))  # rx_count + combined_count


def _bus_info(control: socket.socket, name: str) -> str:
    """Ask the driver where its device is; "" if that has no place."""
    info = ctypes.create_string_buffer(_DRIVER_INFO.pack(_ETHTOOL_GDRVINFO, *(b"",) * 6, *(0,) * 5), _DRIVER_INFO.size)
    request = name.encode().ljust(_IFNAMSIZ, b"\0")[:_IFNAMSIZ] + struct.pack("=Q", ctypes.addressof(info))
    try:
        fcntl.ioctl(control.fileno(), _SIOCETHTOOL, request.ljust(_IFREQ_BYTES, b"\0"))
    except OSError:
        return ""  # a driver without ethtool's operations is of no device
    return bytes(_DRIVER_INFO.unpack(info.raw)[_BUS_INFO]).partition(b"\0")[0].decode("ascii", "replace")


def numa_node(bus_info: str, devices: Path = _PCI_DEVICES) -> int:
    """Return the NUMA node of a PCI device; -1 if it is on none, or is no PCI device.

    :param bus_info: what the driver calls its place, such as ``0000:18:00.0``
    """
    if not _PCI_ADDRESS.fullmatch(bus_info):
        return -1
    try:
        return int((devices / bus_info / "numa_node").read_text())
    except (OSError, ValueError):
        return -1
