"""The injector (native/bpf/inject.bpf.c): frames of user space become frames that an interface received.

One for each queue, because a run takes its frames from slots that belong to it. A program that is attached nowhere
costs two waits for RCU in each call (25 ms); so the injector is attached to the loopback of a private network
namespace, which no frame reaches. Source: net/bpf/test_run.c, xdp_test_run_setup; bpf_prog_change_xdp
"""

import ctypes
import mmap
import os
from typing import Final, Self

from ..bpf import syscall
from ..bpf.libbpf import LibbpfObject
from ..bpf.maps import Map
from ..bpf.network_namespace import LOOPBACK_IFINDEX, NetworkNamespace
from ..bpf.own_programs import own_program

_XDP_FLAGS_SKB_MODE: Final = 1 << 1
# Our programs that count what drivers did with the frames, and where.
_TRACEPOINTS: Final = {"transmitted": "xdp_devmap_xmit", "refused": "xdp_redirect_err"}


class Injector:
    """One loaded injector. Close it, or use it as a context manager."""

    def __init__(self, *, bypass: Map | None = None) -> None:
        """Load it.

        :param bypass: the counters of an interface whose program is generic; None if it is in the driver
        """
        self._held: list[int] = []
        self._loaded = LibbpfObject(own_program("inject"), "uxdp")
        try:
            for table in self._loaded.maps:
                if table.name == "bypass" and bypass is not None:
                    table.reuse_fd(bypass.fd)
                elif table.section == ".rodata" and bypass is not None:
                    table.write_initial(0, (1).to_bytes(4, "little"))
            self._loaded.load()
            fds = {program.name: program.fd for program in self._loaded.programs}
            self.fd = fds["inject"]
            maps = {table.name: Map(table.fd, name=table.name) for table in self._loaded.maps}
            self._slots = maps["slots"].mmap()
            self._cursor = maps["cursor"].mmap()
            self._transmissions = maps["transmissions"].mmap()
            for program, tracepoint in _TRACEPOINTS.items():
                self._held.append(syscall.open_raw_tracepoint(fds[program], tracepoint))
            # The link keeps it attached as long as the namespace lives, which is as long as its descriptor.
            self._namespace = NetworkNamespace()
            with self._namespace.entered():
                self._held.append(syscall.create_xdp_link(self.fd, LOOPBACK_IFINDEX, _XDP_FLAGS_SKB_MODE))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and give up the program; its memory stays mapped as long as somebody has its address."""
        for fd in self._held:
            os.close(fd)
        self._held.clear()
        self._loaded.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that a process needs open so that injecting works, and is fast."""
        return (self.fd, self._namespace.fd, *self._held)

    @property
    def slots_address(self) -> int:
        """The address of the slots in this process."""
        return _address(self._slots)

    @property
    def cursor_address(self) -> int:
        """The address of the injector's struct uxdp_cursor."""
        return _address(self._cursor)

    @property
    def transmissions_address(self) -> int:
        """The address of the counters of what the drivers took and refused."""
        return _address(self._transmissions)


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
