"""Hears of changes to routes, rules, neighbours, addresses and devices, so that answers about them are asked for anew.

The kernel tells rtnetlink's multicast groups of whatever bpf_fib_lookup and bpf_check_mtu depend on but paths' MTUs and
sysctls. The socket is made by the control process in the service's network namespace, which it keeps listening to; a
thread of the data process reads it, so that routes are followed whatever becomes of the control process.

What is said matters not, only that something was, but for neighbours: of these most of what is said changes no answer
(neighbours.py). The kernel tells of a route that is deleted shortly before it is gone
(fib_table_delete), so answers are forgotten at once, and again when it has been quiet for a moment. While there is much
to tell, as when a routing daemon starts, they are forgotten once in a millisecond at most.

References: rtnetlink(7); include/uapi/linux/rtnetlink.h, enum rtnetlink_groups
"""

import errno
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Final, Self

from ..kernel_state import KernelState
from .neighbours import Neighbours

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
# RTNLGRP_…
_GROUPS: Final = {
    "LINK": 1,
    "NEIGH": 3,
    "IPV4_IFADDR": 5,
    "IPV4_ROUTE": 7,
    "IPV4_RULE": 8,
    "IPV6_IFADDR": 9,
    "IPV6_ROUTE": 11,
    "IPV6_RULE": 19,
    "IPV4_NETCONF": 24,  # sysctls of interfaces: forwarding
    "IPV6_NETCONF": 25,
    "NEXTHOP": 32,
}
_MESSAGE_BYTES: Final = 1 << 16
_DATAGRAMS_AT_ONCE: Final = 256
_PAUSE_SECONDS: Final = 0.001
_SETTLED_MS: Final = 20


class RouteWatch:
    """The socket. Close it, or use it as a context manager; ``follow`` is for a data process."""

    def __init__(self) -> None:
        """Listen, in the network namespace of this thread."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, 0))
            for group in _GROUPS.values():
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()

    @property
    def fd(self) -> int:
        """The descriptor that a data process must keep."""
        return self._socket.fileno()

    def follow(self, kernels: Sequence[KernelState]) -> None:
        """Start the thread that lets workers forget; it ends with the process.

        :param kernels: the workers', all of them
        """
        threading.Thread(target=self._follow, args=(kernels,), name="routes", daemon=True).start()

    def _follow(self, kernels: Sequence[KernelState]) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        neighbours = Neighbours()
        while True:
            if neighbours.wants_dump:
                self._socket.sendto(neighbours.ask(), (0, 0))
            poll.poll()
            has_changed = False
            while True:
                if self._has_changed(neighbours):
                    has_changed = True
                    _forget(kernels)
                time.sleep(_PAUSE_SECONDS)
                if not poll.poll(_SETTLED_MS):
                    break
            if has_changed:
                _forget(kernels)

    def _has_changed(self, neighbours: Neighbours) -> bool:
        """Take what was said out of the socket, as far as it is not too much; return whether it changes answers."""
        has_changed = False
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                datagram = self._socket.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # More was said than there is room for.
                neighbours.lost()
                has_changed = True
            else:
                if len(datagram) == _MESSAGE_BYTES:  # and perhaps more
                    neighbours.lost()
                has_changed = neighbours.changed_by(datagram) or has_changed
        return has_changed


def _forget(kernels: Sequence[KernelState]) -> None:
    for kernel in kernels:
        kernel.forget()
