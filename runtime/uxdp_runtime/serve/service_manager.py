"""What a service tells systemd: that it serves, how it is, that it lives, that it stops.

The protocol is a datagram of lines NAME=VALUE to the socket in $NOTIFY_SOCKET, whose address begins with "@" if it is
an abstract one. The watchdog is told only while every queue's thread makes progress, so a service whose control process
lives but whose queues hang is restarted like one that has ended.

References: sd_notify(3), "Standalone Implementations"; sd_watchdog_enabled(3)
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

from ..errors import PortError

_MICROSECONDS: Final = 1_000_000


class ServiceManager:
    """The socket of a service manager. Close it, or use it as a context manager."""

    def __init__(self, address: str, *, watchdog_seconds: float | None = None) -> None:
        """Connect.

        :param address: a path, or ``@`` and the name of an abstract socket
        :param watchdog_seconds: how often it wants to hear of us, at least; None: never
        :raises PortError: nobody is there; ``context`` is the address
        """
        self.address = address
        self.watchdog_seconds = watchdog_seconds
        self._told_ns = 0
        self._beats: tuple[int, ...] = ()
        self._status = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            if not address.startswith(("/", "@")):
                raise OSError(97, "neither a path nor an abstract socket")
            self._socket.connect("\0" + address[1:] if address.startswith("@") else address)
        except OSError as cause:
            self._socket.close()
            raise PortError(
                cause.errno or 22,
                f"cannot notify: {cause.strerror or cause}",
                context=f"$NOTIFY_SOCKET {address}",
                remedy="unset NOTIFY_SOCKET where no service manager listens",
            ) from cause

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ServiceManager | None":
        """Return the one that started this process, or None.

        :raises PortError: it is named, but not there
        """
        address = environment.get("NOTIFY_SOCKET", "")
        if not address:
            return None
        interval = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = int(interval) if interval.isdecimal() and for_us else 0
        return cls(address, watchdog_seconds=microseconds / _MICROSECONDS if microseconds else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Say no more."""
        self._socket.close()

    def tell(self, *lines: str) -> bool:
        """Send lines such as ``READY=1``; False if the manager did not take them."""
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError:  # it restarts, or has too much to read: what matters is said again
            return False
        return True

    def tell_status(self, text: str) -> None:
        """Tell, in one line, how the service is, if that has changed."""
        if text != self._status and self.tell("STATUS=" + text.replace("\n", " ")):
            self._status = text

    def tell_alive(self, heartbeats: Sequence[int], clock_ns: Callable[[], int] = time.monotonic_ns) -> bool:
        """Tell the watchdog that the service lives, if half its time is over and all queues went on; say whether.

        :param heartbeats: of the queues' threads, numbers that grow while they do something; none where the kernel
            serves
        """
        if self.watchdog_seconds is None:
            return False
        now, beats = clock_ns(), tuple(heartbeats)
        if now - self._told_ns < self.watchdog_seconds * 1e9 / 2:
            return False
        if len(beats) == len(self._beats) and any(new <= old for new, old in zip(beats, self._beats, strict=True)):
            return False
        if not self.tell("WATCHDOG=1"):
            return False
        self._told_ns, self._beats = now, beats
        return True
