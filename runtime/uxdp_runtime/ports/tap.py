"""A TAP interface: the way from a port that the kernel does not know into the kernel's stack, and back.

It is made by the control process, so that its addresses and routes stay when a data process is replaced, and goes with
the last descriptor of it. Each worker has a queue of its own.

References: Documentation/networking/tuntap.rst; include/uapi/linux/if_tun.h
"""

import errno
import fcntl
import os
import socket
import struct
import time
from typing import Final, Self

from ..errors import PortError, errno_text

_TUNSETIFF: Final = 0x400454CA
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFHWADDR, _SIOCSIFMTU = 0x8913, 0x8914, 0x8924, 0x8922
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x0100
_IFF_UP: Final = 1
_ARPHRD_ETHER: Final = 1
_IFNAMSIZ: Final = 16
_IFREQ_BYTES: Final = 40
_REMEDIES: Final = {
    **dict.fromkeys(
        (errno.EBUSY, errno.EEXIST, errno.EINVAL), "another interface is called so: end the service that has the device"
    ),
    errno.E2BIG: "a TAP interface has at most 256 queues: have fewer workers on the device",
    errno.EPERM: "run as root, or with CAP_NET_ADMIN",
}
_BUSY_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.005


class Tap:
    """A TAP interface with several queues. Close it, or use it as a context manager: then it is gone."""

    def __init__(self, name: str, num_queues: int) -> None:
        """Make it; it is down.

        :param name: what it shall be called; %d in it is a number that is free
        :raises PortError: it cannot be made
        """
        self.fds: list[int] = []
        self.name = name
        try:
            for _ in range(num_queues):
                self.fds.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
                flags = _IFF_TAP | _IFF_NO_PI | (_IFF_MULTI_QUEUE if num_queues > 1 else 0)
                request = struct.pack("=16sH22x", self.name.encode(), flags)
                made = self._attach(request)
                self.name = made[:_IFNAMSIZ].rstrip(b"\0").decode()
        except OSError as cause:
            self.close()
            number = cause.errno or errno.EIO
            raise PortError(
                number,
                f"the way into the kernel's stack cannot be made: {errno_text(number)}",
                context=f"TAP interface {name}",
                remedy=f"{_REMEDIES.get(number, 'load the module tun')}, or say --pass none",
            ) from cause

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it up; it is gone when no other process has its descriptors."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def bring_up(self, mac: bytes, mtu: int) -> None:
        """Let it be what the port is: its address, its MTU, and up.

        Ports that have no address, such as net_ring's, leave it with the one that the kernel chose.

        :raises PortError: the kernel refuses one of these
        """
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            try:
                if any(mac):
                    self._ioctl(control, _SIOCSIFHWADDR, struct.pack("=H6s", _ARPHRD_ETHER, mac))
                self._ioctl(control, _SIOCSIFMTU, struct.pack("=i", mtu))
                flags = self._ioctl(control, _SIOCGIFFLAGS, b"")[_IFNAMSIZ : _IFNAMSIZ + 2]
                (value,) = struct.unpack("=H", flags)
                self._ioctl(control, _SIOCSIFFLAGS, struct.pack("=H", value | _IFF_UP))
            except OSError as cause:
                number = cause.errno or errno.EIO
                raise PortError(
                    number, f"cannot be what the port is: {errno_text(number)}", context=f"TAP interface {self.name}"
                ) from cause

    def _attach(self, request: bytes) -> bytes:
        """Attach the last descriptor; one that another process has given up goes a moment later."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                return fcntl.ioctl(self.fds[-1], _TUNSETIFF, request)
            except OSError as refused:
                if refused.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def _ioctl(self, control: socket.socket, request: int, content: bytes) -> bytes:
        name = self.name.encode().ljust(_IFNAMSIZ, b"\0")
        return fcntl.ioctl(control.fileno(), request, (name + content).ljust(_IFREQ_BYTES, b"\0"))
