"""A network namespace of this process alone, with devices that lead nowhere.

Frames that the kernel really receives, sends or redirects (BPF_F_TEST_XDP_LIVE_FRAMES) must not meet the machine's own
interfaces. In a new namespace there is nothing but a loopback that is down; ``add_device`` adds ends of veth pairs
whose indices the caller chooses, down as well. Everything is gone when the namespace is closed and no thread is in it.

A namespace belongs to a thread: ``entered`` moves the calling thread alone, and moves it back.

References: namespaces(7), setns(2); rtnetlink(7); include/uapi/linux/if_link.h, veth.h
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Self

from uxdp_bundle.errors import UnsupportedFeatureError

from ..errors import BpfError, MissingCapabilityError, errno_text

LOOPBACK_IFINDEX: Final = 1

_CLONE_NEWNET: Final = 0x40000000  # include/uapi/linux/sched.h
_OWN_NAMESPACE: Final = "/proc/thread-self/ns/net"
# include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, veth.h
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x200, 0x400
_NLMSG_ERROR: Final = 2
_RTM_NEWLINK: Final = 16
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 18, 1, 2, 1
_NLMSGHDR: Final = struct.Struct("=IHHII")
_IFINFOMSG: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ACK_BYTES: Final = 8192

_libc: Final = ctypes.CDLL(None, use_errno=True)


class NetworkNamespace:
    """A new network namespace. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        """Make the namespace; the calling thread stays where it is.

        :raises MissingCapabilityError: this process lacks CAP_SYS_ADMIN
        :raises UnsupportedFeatureError: this kernel, or this container, has no network namespaces to give
        """
        with ExitStack() as stack:
            home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, home)
            if _libc.unshare(_CLONE_NEWNET):
                number = ctypes.get_errno()
                if number == errno.EPERM:
                    raise MissingCapabilityError(("CAP_SYS_ADMIN",), "missing, a network namespace needs it")
                raise UnsupportedFeatureError("network namespaces", f"unshare: {errno_text(number)}")
            stack.callback(_move, home)
            with ExitStack() as kept:
                self._fd = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
                kept.callback(os.close, self._fd)
                # A socket belongs to the namespace that it was made in.
                self._netlink = kept.enter_context(
                    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
                )
                self._resources = kept.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def fd(self) -> int:
        """A descriptor of the namespace: it exists as long as one is open."""
        return self._fd

    def close(self) -> None:
        """Give the namespace up, and with it what is in it."""
        self._resources.close()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread in the namespace meanwhile."""
        home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _move(self._fd)
            try:
                yield
            finally:
                _move(home)
        finally:
            os.close(home)

    def add_device(self, ifindex: int, peer_ifindex: int) -> None:
        """Add a veth pair; both ends are down.

        :param ifindex: of one end, greater than 1
        :param peer_ifindex: of the other
        :raises BpfError: EEXIST if there is such a device
        """
        peer = _attribute(_VETH_INFO_PEER, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, peer_ifindex, 0, 0))
        info = _attribute(_IFLA_INFO_KIND, b"veth\0") + _attribute(_IFLA_INFO_DATA, peer)
        body = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + _attribute(_IFLA_LINKINFO, info)
        self._ask(
            _RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body, f"a veth pair of the indices {ifindex}, {peer_ifindex}"
        )

    def _ask(self, kind: int, flags: int, body: bytes, what: str) -> None:
        """Send one request of rtnetlink and wait for the kernel's answer, which comes at once."""
        header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0)
        self._netlink.send(header + body)
        answer = self._netlink.recv(_ACK_BYTES)
        _length, answered, _flags, _sequence, _port = _NLMSGHDR.unpack_from(answer)
        (result,) = struct.unpack_from("=i", answer, _NLMSGHDR.size)
        if answered != _NLMSG_ERROR or result:
            raise BpfError(-result, f"{what}: {errno_text(-result)}", context="network namespace")


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _move(namespace_fd: int) -> None:
    if _libc.setns(namespace_fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise BpfError(number, f"setns: {errno_text(number)}", context="network namespace")
