"""The memory of frames: one area for the queues of each NUMA node, which forked processes share."""

import ctypes
import errno
import mmap
import platform
from typing import Final

from ..errors import PortError, errno_text

_MAP_HUGETLB: Final = 0x40000  # include/uapi/asm-generic/mman-common.h
_HUGE_PAGE_BYTES: Final = 2 << 20
_MADV_POPULATE_WRITE: Final = 23  # include/uapi/asm-generic/mman-common.h
_MPOL_PREFERRED: Final = 1  # include/uapi/linux/mempolicy.h
_SYS_MBIND: Final = {"x86_64": 237, "aarch64": 235}
_NODE_BITS: Final = 64
_libc = ctypes.CDLL(None, use_errno=True)


class Umem:
    """An area of chunks. ``has_huge_pages`` tells whether the machine had such to give for it."""

    def __init__(self, size_bytes: int, numa_node: int) -> None:
        """Map it.

        :param numa_node: where its pages shall lie, if they can; -1: wherever they are first touched
        :raises PortError: ENOMEM or the like
        """
        self.numa_node = numa_node
        self._memory, self.has_huge_pages = _map(size_bytes)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.size_bytes = len(self._memory)
        self._taken_bytes = 0
        if numa_node >= 0:
            self._prefer(numa_node)

    def take(self, size_bytes: int) -> int:
        """Return the offset of the next range, which is nobody else's; the area was made for all who ask."""
        offset = self._taken_bytes
        self._taken_bytes += size_bytes
        return offset

    def populate(self) -> None:
        """Map all of it into this process at once; a fork leaves that to the first use of each page."""
        try:
            self._memory.madvise(_MADV_POPULATE_WRITE)
        except OSError as cause:
            if cause.errno != errno.EINVAL:  # a kernel before 5.14: frames do it one by one
                raise PortError(
                    cause.errno or errno.ENOMEM, f"map it: {errno_text(cause.errno or errno.ENOMEM)}", context="UMEM"
                ) from cause

    def _prefer(self, node: int) -> None:
        number = _SYS_MBIND.get(platform.machine())
        if number is None or node >= _NODE_BITS:
            raise PortError(errno.EOPNOTSUPP, f"memory on node {node}: not on this machine", context="UMEM")
        area = (ctypes.c_void_p(self.address), ctypes.c_size_t(self.size_bytes))
        # The kernel takes one bit less than it is told of. Source: mm/mempolicy.c, get_nodes
        mask = (ctypes.byref(ctypes.c_uint64(1 << node)), ctypes.c_ulong(_NODE_BITS + 1), ctypes.c_uint(0))
        if _libc.syscall(number, *area, ctypes.c_int(_MPOL_PREFERRED), *mask):
            failed = ctypes.get_errno()
            raise PortError(failed, f"memory on node {node}: mbind: {errno_text(failed)}", context="UMEM")


def _map(size_bytes: int) -> tuple[mmap.mmap, bool]:
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    try:
        return mmap.mmap(-1, size_bytes + -size_bytes % _HUGE_PAGE_BYTES, flags=flags | _MAP_HUGETLB), True
    except OSError:
        pass  # none are free: pages of the usual size do
    try:
        return mmap.mmap(-1, size_bytes, flags=flags), False
    except OSError as cause:
        number = cause.errno or errno.ENOMEM
        raise PortError(
            number,
            f"{size_bytes >> 20} MiB of memory for frames: {errno_text(number)}",
            context="UMEM",
            remedy="serve fewer queues, or give each fewer chunks",
        ) from cause
