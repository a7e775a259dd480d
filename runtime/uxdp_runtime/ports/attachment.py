"""Our program on an interface (native/bpf/redirect.bpf.c): it gives each frame to the AF_XDP socket of its queue.

It is attached by a bpf_link, so it goes when the last process that holds the link's descriptor ends, however it ends;
then frames reach the kernel's stack as ever. While the data process is away, ``away`` makes the program do what the
fallback says. Attaching in the driver ("native") is tried first; a driver without XDP gets the generic kind, which
works on socket buffers, for every interface.
"""

import errno
import os
import struct
import time
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Self

from ..bpf import syscall
from ..bpf.libbpf import LibbpfObject, attached_program, detach_program, program_fd_of
from ..bpf.maps import Map
from ..bpf.own_programs import own_program
from ..errors import BpfError, LoadError, PortError, errno_text
from .interface import Interface

_FIRST_KEY: Final = bytes(4)
_SETTINGS = struct.Struct("=II")
_XDP_FLAGS_SKB_MODE: Final = 1 << 1  # include/uapi/linux/if_link.h
_XDP_FLAGS_DRV_MODE: Final = 1 << 2
_HAS_FRAGS: Final = 1 << 5  # BPF_F_XDP_HAS_FRAGS, include/uapi/linux/bpf.h
_DETACHED_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.002


class Fallback(IntEnum):
    """What happens to frames that nobody serves: enum xdp_action, and the network function in the kernel."""

    KERNEL = 0
    DROP = 1
    PASS = 2


class Attachment:
    """The program on one interface. Close it, or use it as a context manager."""

    def __init__(
        self,
        target: Interface,
        *,
        fallback: Fallback,
        program_fd: int,
        frags: bool = False,
        generic: bool | None = None,
        bypass_fd: int = -1,
        replace: bool = False,
        asks_hardware: bool = False,
    ) -> None:
        """Load and attach the program, with nobody at the sockets yet: frames go where the fallback says.

        :param program_fd: the verified program, for Fallback.KERNEL
        :param frags: whether the program takes frames of several buffers; both must, or neither
        :param generic: attach in the driver (False), generically (True), or as it goes (None)
        :param bypass_fd: the injector's counters of passing frames, see the program; -1: there is no injector
        :param replace: detach another program first; it is not attached again afterwards
        :param asks_hardware: ask the driver what it knows of each frame, where it has answers; ``asks_hardware`` tells
            then whether it has, and ``no_answers`` why not
        :raises PortError: EBUSY if another program is attached, EOPNOTSUPP if the driver has no XDP
        """
        self.interface = target
        self.link = -1
        self.no_answers = "generic XDP knows nothing of hardware" if asks_hardware and generic is True else ""
        self.asks_hardware = asks_hardware and generic is not True
        if self.asks_hardware:
            try:
                self._loaded = _load("redirect_metadata", frags=frags, bypass_fd=bypass_fd, device=target.index)
            except LoadError as refused:
                self.no_answers = errno_text(refused.errno) if refused.errno else str(refused)
                self.asks_hardware = False
        if not self.asks_hardware:
            self._loaded = _load("redirect", frags=frags, bypass_fd=bypass_fd)
        try:
            (program,) = self._loaded.programs
            self.program_fd = program.fd
            self._maps = {table.name: Map(table.fd, name=table.name) for table in self._loaded.maps}
            self._settings = self._maps["settings"].mmap()
            _SETTINGS.pack_into(self._settings, 0, 1, fallback)
            self._fallback = fallback
            self.set_fallback_program(program_fd)
            if replace:
                detach_other(target)
            # A program for one device is for its driver.
            how = False if self.asks_hardware else generic
            self.link, self.is_generic = attach_by_link(self.program_fd, target, how)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the link: without another holder of it, the program is detached."""
        if self.link >= 0:
            os.close(self.link)
            self.link = -1
        self._loaded.close()

    @property
    def bypass(self) -> Map:
        """The counters of passing frames, which the injector shares."""
        return self._maps["bypass"]

    def set_socket(self, queue_id: int, fd: int) -> None:
        """Let the frames of a queue go to a socket.

        :raises BpfError: EBADF or EOPNOTSUPP if that is no bound AF_XDP socket
        """
        self._maps["sockets"].update(struct.pack("=I", queue_id), struct.pack("=i", fd))

    def set_fallback_program(self, program_fd: int) -> None:
        """Let another version of the program stand in, if that is the fallback."""
        if self._fallback is Fallback.KERNEL:
            self._maps["program"].update(_FIRST_KEY, struct.pack("=i", program_fd))

    def set_away(self, away: bool) -> None:
        """Say whether anybody reads the sockets; takes effect with the next frame."""
        _SETTINGS.pack_into(self._settings, 0, int(away), _SETTINGS.unpack_from(self._settings)[1])


def _load(name: str, *, frags: bool, bypass_fd: int, device: int = 0) -> LibbpfObject:
    """Load one of our programs; ``device``: for that one alone."""
    loaded = LibbpfObject(own_program(name), "uxdp")
    try:
        for item in loaded.programs:
            item.set_type(item.type, item.expected_attach_type, _HAS_FRAGS if frags else 0)
            if device:
                item.bind_to_device(device)
        for table in loaded.maps:
            if table.name == "bypass" and bypass_fd >= 0:
                table.reuse_fd(bypass_fd)
        loaded.load()
    except BaseException:
        loaded.close()
        raise
    return loaded


def detach_other(target: Interface) -> None:
    """Detach whatever program is on an interface.

    :raises PortError: it cannot be
    """
    index = target.index
    try:
        program = attached_program(index)
        links = syscall.find_xdp_links(index, program) if program else []
        try:
            if len(links) > 1:
                raise PortError(
                    errno.EBUSY,
                    f"several links attach {_described(program)} to interfaces with ifindex {index}, and the kernel "
                    "does not tell in which network namespaces they are",
                    context=target.name,
                    remedy="end the process that attached it",
                )
            for fd in links:
                syscall.detach_link(fd)
        finally:
            for fd in links:
                os.close(fd)
        if attached_program(index):
            detach_program(index)
    except BpfError as refused:
        number = refused.errno or errno.EIO
        raise PortError(
            number, f"the program on it cannot be detached: {refused.message}", context=target.name
        ) from refused


def await_detached(targets: Iterable[Interface]) -> None:
    """Wait until no program is attached to interfaces any more, or some seconds have passed."""
    deadline = time.monotonic() + _DETACHED_SECONDS
    for target in targets:
        while attached_program(target.index) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)


def attach_by_link(program_fd: int, target: Interface, generic: bool | None) -> tuple[int, bool]:
    """Attach a program to an interface; return the link's descriptor, and whether it is generic XDP.

    :param generic: attach in the driver (False), generically (True), or as it goes (None)
    :raises PortError: EBUSY if another program is attached, EOPNOTSUPP if the driver has no XDP
    """
    if generic is not True:
        try:
            return syscall.create_xdp_link(program_fd, target.index, _XDP_FLAGS_DRV_MODE), False
        except BpfError as refused:
            if refused.errno != errno.EOPNOTSUPP or generic is False:
                raise _refused(refused, target) from refused
    try:
        return syscall.create_xdp_link(program_fd, target.index, _XDP_FLAGS_SKB_MODE), True
    except BpfError as refused:
        raise _refused(refused, target) from refused


def _refused(refused: BpfError, target: Interface) -> PortError:
    number = refused.errno or errno.EIO
    if number in (errno.EBUSY, errno.EEXIST):
        return PortError(
            errno.EBUSY,
            f"another XDP program is attached: {_described(attached_program(target.index))}",
            context=target.name,
            remedy="detach it (ip link set dev … xdp off), or say --replace",
        )
    return PortError(number, f"the program cannot be attached: {errno_text(number)}", context=target.name)


def _described(program_id: int) -> str:
    fd = program_fd_of(program_id)
    try:
        return f"{syscall.program_info(fd).name} (id {program_id})"
    finally:
        os.close(fd)
