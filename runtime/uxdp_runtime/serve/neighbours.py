"""What rtnetlink tells of neighbours, and whether it changes what bpf_fib_lookup answers.

Neighbours are confirmed all the time: REACHABLE becomes STALE, DELAY, PROBE and REACHABLE again. A lookup asks only
whether the state is one of NUD_VALID, and takes the address (net/core/filter.c, bpf_ipv4_fib_lookup). Nor does it
matter what becomes of one that was not valid and is not: somebody who looks for hosts makes many of these.

So each neighbour's address is remembered, None for one that is not valid. What is known begins with a dump. While it is
not complete, all that is told of neighbours is a change. What is told comes after it was so; the dump tells of each
neighbour how it was at some time meanwhile, so what else is told of it has precedence.

References: include/uapi/linux/netlink.h, include/uapi/linux/neighbour.h; net/core/neighbour.c
"""

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # struct ndmsg
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr
_ERROR, _DONE, _NEW, _DELETED, _GET = 2, 3, 28, 29, 30  # NLMSG_…, RTM_…NEIGH
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_TYPE_MASK: Final = 0x3FFF  # NLA_TYPE_MASK
_DST, _LLADDR = 1, 2  # NDA_…
_VALID: Final = 0xDE  # NUD_VALID: PERMANENT, NOARP, REACHABLE, PROBE, STALE, DELAY
_PROXY: Final = 0x08  # NTF_PROXY
_AF_BRIDGE: Final = 7  # forwarding tables of bridges and tunnels, which route nothing

_Key = tuple[int, int, bytes]  # family, interface, address


class Neighbours:
    """What is known. Give it each datagram of the socket, in their order."""

    def __init__(self) -> None:
        self._known: dict[_Key, bytes | None] = {}
        self._sequence = os.getpid()  # the answers to another process, which had the socket, are not ours
        self._asked = False
        self._complete = False

    @property
    def wants_dump(self) -> bool:
        """Whether ``ask`` should be sent."""
        return not self._asked

    def ask(self) -> bytes:
        """Return a request for all neighbours."""
        self.lost()
        self._asked = True
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        size = _HEADER.size + _NEIGHBOUR.size
        return _HEADER.pack(size, _GET, _REQUEST_DUMP, self._sequence, 0) + _NEIGHBOUR.pack(
            socket.AF_UNSPEC, 0, 0, 0, 0
        )

    def lost(self) -> None:
        """Know nothing: something was told, and not heard."""
        self._known.clear()
        self._asked = self._complete = False

    def changed_by(self, datagram: bytes) -> bool:
        """Return whether answers may be others from now on; whatever is not understood is a change."""
        has_changed = False
        try:
            for message in _messages(datagram):
                has_changed = self._hear(*message) or has_changed
        except (struct.error, ValueError):
            self.lost()
            return True
        return has_changed

    def _hear(self, kind: int, sequence: int, body: bytes) -> bool:
        own = self._asked and not self._complete and sequence == self._sequence
        if kind in (_DONE, _ERROR) and own:
            self._complete = kind == _DONE  # else what is told of neighbours stays a change
            return True
        if kind not in (_NEW, _DELETED, _GET):
            return True
        family, ifindex, state, flags, _type = _NEIGHBOUR.unpack_from(body)
        if family == _AF_BRIDGE:
            return False
        if family not in (socket.AF_INET, socket.AF_INET6) or flags & _PROXY:
            return True
        attributes = dict(_attributes(body[_NEIGHBOUR.size :]))
        if _DST not in attributes:
            raise ValueError("a neighbour without an address")
        key = (family, ifindex, attributes[_DST])
        is_valid = kind != _DELETED and state & _VALID
        address = attributes.get(_LLADDR, b"") if is_valid else None
        if kind == _NEW and own:
            self._known.setdefault(key, address)
            return False
        before = self._known.get(key)
        if kind == _DELETED and self._complete:
            self._known.pop(key, None)
        else:
            self._known[key] = address
        return not self._complete or address != before


def _messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the type, the sequence number and the body of each message."""
    at = 0
    while at < len(datagram):
        size, kind, _flags, sequence, _port = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= size <= len(datagram) - at:
            raise ValueError(f"a message of {size} bytes")
        yield kind, sequence, datagram[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= size <= len(data) - at:
            raise ValueError(f"an attribute of {size} bytes")
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
