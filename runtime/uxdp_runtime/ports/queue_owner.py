"""Who has the AF_XDP socket of a queue: asked of the kernel by NETLINK_SOCK_DIAG, and of /proc.

The kernel tells a socket's queue and inode (if it is built with CONFIG_XDP_SOCKETS_DIAG); whose descriptor has that
inode, /proc tells, of processes that this one may look at. Nothing here is more than a hint for people: the owner may
be gone when it is read.

References: net/xdp/xsk_diag.c; include/uapi/linux/xdp_diag.h; sock_diag(7)
"""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_AF_XDP: Final = 44
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: len, type, flags, seq, pid
_REQUEST = struct.Struct("=BBHIIII")  # struct xdp_diag_req: family, protocol, pad, ino, show, cookie[2]
_MESSAGE = struct.Struct("=BBHIII")  # struct xdp_diag_msg: family, type, pad, ino, cookie[2]
_SHOW_INFO: Final = 1
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: len, type
_XDP_DIAG_INFO: Final = 1
_INFO = struct.Struct("=II")  # struct xdp_diag_info: ifindex, queue_id
_ANSWER_BYTES: Final = 1 << 16
_ANSWER_SECONDS: Final = 1.0


def describe_owner(ifindex: int, queue_id: int) -> str:
    """Return who has the queue, such as ``process 4711 (suricata)``; "" if that cannot be found out."""
    try:
        inodes = {inode for *queue, inode in _sockets() if queue == [ifindex, queue_id]}
    except OSError:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    if not wanted:
        return ""
    return ", ".join(f"process {pid} ({name})" for pid, name in _holders(lambda path: str(path.readlink()) in wanted))


def describe_holders() -> str:
    """Return the other processes that have AF_XDP sockets, whatever these are bound to; "" if none can be seen."""
    others = (holder for holder in _holders(_is_xdp_socket) if holder[0] != os.getpid())
    return ", ".join(f"process {pid} ({name})" for pid, name in others)


def parse_sockets(answer: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (ifindex, queue, inode) of each socket in an answer; what is malformed ends it."""
    at = 0
    while at + _HEADER.size <= len(answer):
        length, kind, *_rest = _HEADER.unpack_from(answer, at)
        end = at + length
        if length < _HEADER.size or end > len(answer):
            return
        place = at + _HEADER.size
        if kind == _SOCK_DIAG_BY_FAMILY and place + _MESSAGE.size <= end:
            inode = _MESSAGE.unpack_from(answer, place)[3]
            place += _MESSAGE.size
            while place + _ATTRIBUTE.size <= end:
                size, name = _ATTRIBUTE.unpack_from(answer, place)
                if size < _ATTRIBUTE.size or place + size > end:
                    return
                if name == _XDP_DIAG_INFO and size >= _ATTRIBUTE.size + _INFO.size:
                    yield (*_INFO.unpack_from(answer, place + _ATTRIBUTE.size), inode)
                place += size + -size % 4
        at = end + -length % 4


def _sockets() -> list[tuple[int, int, int]]:
    request = _REQUEST.pack(_AF_XDP, 0, 0, 0, _SHOW_INFO, 0, 0)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    found: list[tuple[int, int, int]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        asking.send(header + request)
        while True:
            answer = asking.recv(_ANSWER_BYTES)
            found += parse_sockets(answer)
            if len(answer) < _HEADER.size or _last_kind(answer) in (_NLMSG_ERROR, _NLMSG_DONE):
                return found


def _last_kind(answer: bytes) -> int:
    at, kind = 0, _NLMSG_ERROR
    while at + _HEADER.size <= len(answer):
        length, kind, *_rest = _HEADER.unpack_from(answer, at)
        at += max(length + -length % 4, _HEADER.size)
    return int(kind)


def _is_xdp_socket(path: Path) -> bool:
    # What sockfs tells of each socket, whatever its namespace. Source: net/socket.c, sockfs_xattr_get
    return os.getxattr(path, "system.sockprotoname").rstrip(b"\0") == b"XDP"


def _holders(is_wanted: Callable[[Path], bool]) -> Iterator[tuple[int, str]]:
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(_holds(path, is_wanted) for path in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text().strip()
        except OSError:
            continue  # it has ended, or is not ours to look at


def _holds(path: Path, is_wanted: Callable[[Path], bool]) -> bool:
    try:
        return is_wanted(path)
    except OSError:
        return False  # closed meanwhile, or no socket
