"""Ask the kernel where it sends a frame that a program redirects.

BPF_PROG_TEST_RUN tells the verdict and no target. With BPF_F_TEST_XDP_LIVE_FRAMES the kernel acts on the verdict, and
its tracepoints xdp_redirect and xdp_redirect_err tell what it was about to do: a small program there notes the map, the
key and the error in an array that is mapped into this process. They are passed by everybody's redirected frames, so the
program looks at the thread first.

Live frames really go where the verdict says; hence all of this happens in a NetworkNamespace of its own, on its
loopback, which is down. Devices in it take no frames from XDP, as they are veths whose peers run none. That serves to
tell a broadcast from a redirect to one device: to one the kernel fails with EOPNOTSUPP, while a broadcast finds nobody
and succeeds.

Two things differ from a frame of BPF_PROG_TEST_RUN. Its page also holds the kernel's own struct xdp_page_head, so the
tailroom is smaller, and so is the longest frame. And the program's descriptor must be attached somewhere, or else each
call waits for RCU twice, 25 ms: it is, to a device that no frame reaches.

References: net/bpf/test_run.c, xdp_test_run_batch; net/core/filter.c, xdp_do_redirect_frame; kernel/bpf/devmap.c,
dev_map_enqueue_multi; include/trace/events/xdp.h
"""

import errno
import mmap
import os
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

from uxdp_bundle.map_definitions import MAP_TYPES

from ..errors import BpfError, ParameterError
from . import syscall
from .maps import Map
from .network_namespace import LOOPBACK_IFINDEX, NetworkNamespace
from .test_run import MIN_FRAME_BYTES, XDP_MD

# Since Linux commit 1d233886dd90 ("xdp: Use bulking for non-map XDP_REDIRECT and consolidate code paths") (in v5.6),
# redirects by maps pass these, too.
_TRACEPOINTS: Final = ("xdp_redirect", "xdp_redirect_err")
_BPF_F_MMAPABLE: Final = 1 << 10
_XDP_FLAGS_SKB_MODE: Final = 1 << 1
_DEVMAPS: Final = frozenset({"devmap", "devmap_hash"})
_NO_MAP: Final = 0x7FFFFFFF  # INT_MAX: bpf_redirect
# What the program writes: how many, and the arguments of the last one: tgt, err, map_type, map_id, index.
_NOTE: Final = struct.Struct("=QQixxxxQQQ")
_ARGUMENTS: Final = (2, 3, 4, 5, 6)
# Indices of devices at the end of the range, that nobody asks for.
_ATTACHED_IFINDEX: Final = 0x7FFF_FF00

_CALL_GET_CURRENT_PID_TGID: Final = 14


@dataclass(frozen=True, slots=True)
class KernelRedirect:
    """What the kernel was about to do with a frame.

    ``map_id`` is None for an interface; ``index`` is then the interface, otherwise the key in the map. ``has_target``:
    there is such a device, or such an element. ``is_broadcast``: to all devices of a devmap.
    """

    map_id: int | None
    index: int
    has_target: bool
    is_broadcast: bool


class RedirectProbe:
    """Runs frames through an XDP program, in a namespace, and tells where they go. Close it, or use it as a context
    manager.

    The program's descriptor and the namespace are borrowed.
    """

    def __init__(self, program_fd: int, namespace: NetworkNamespace) -> None:
        """Attach the program where no frame comes, and the tracepoints' program.

        :raises BpfError: the kernel has no such tracepoints, or refuses what is needed
        """
        self._fd = program_fd
        self._namespace = namespace
        with ExitStack() as stack:
            notes = stack.enter_context(
                Map.create("array", key_size=4, value_size=_NOTE.size, max_entries=1, flags=_BPF_F_MMAPABLE)
            )
            self._notes: mmap.mmap = stack.enter_context(notes.mmap())
            noting = syscall.load_program(
                _noting_program(notes.fd, _thread_number()),
                license_text="GPL",
                name="redirects",
                kind=syscall.PROG_TYPE_RAW_TRACEPOINT,
            )
            stack.callback(os.close, noting)
            for name in _TRACEPOINTS:
                stack.callback(os.close, syscall.open_raw_tracepoint(noting, name))
            namespace.add_device(_ATTACHED_IFINDEX, _ATTACHED_IFINDEX + 1)
            with namespace.entered():
                stack.callback(os.close, syscall.create_xdp_link(program_fd, _ATTACHED_IFINDEX, _XDP_FLAGS_SKB_MODE))
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach what was attached."""
        self._resources.close()

    def run(self, frame: bytes, *, metadata: bytes = b"") -> KernelRedirect | None:
        """Run the program on a frame and let the kernel act; None if that redirected nothing.

        XDP_TX counts as a redirect to the ingress interface.

        :raises BpfError: the kernel takes no such frame for a live one
        """
        if len(frame) < MIN_FRAME_BYTES:
            raise ParameterError(
                f"{len(frame)} bytes, the kernel runs frames of at least {MIN_FRAME_BYTES}", context="frame"
            )
        self._notes[: _NOTE.size] = bytes(_NOTE.size)
        data = metadata + frame
        with self._namespace.entered():
            syscall.run_program(
                self._fd,
                data,
                context=XDP_MD.pack(len(metadata), len(data), 0, LOOPBACK_IFINDEX, 0, 0),
                flags=syscall.BPF_F_TEST_XDP_LIVE_FRAMES,
                batch_size=1,
            )
        count, target, error, map_type, map_id, index = _NOTE.unpack_from(self._notes)
        if not count:
            return None
        if count > 1:
            raise BpfError(errno.EIO, f"the kernel redirected one frame {count} times", context="live frames")
        return KernelRedirect(
            map_id=None if map_id == _NO_MAP else map_id,
            index=index,
            has_target=bool(target),
            is_broadcast=MAP_TYPES[map_type] in _DEVMAPS and error == 0,
        )


def _thread_number() -> int:
    """Ask the kernel for this thread's number, which in a PID namespace is another one than gettid(2) tells."""
    program = _instruction(0x85, immediate=_CALL_GET_CURRENT_PID_TGID) + _instruction(0x95)  # call; exit
    fd = syscall.load_program(program, license_text="GPL", name="thread")
    try:
        return syscall.run_program(fd, bytes(MIN_FRAME_BYTES)).retval
    finally:
        os.close(fd)


def _noting_program(notes_fd: int, thread: int) -> bytes:
    """Return the instructions of the tracepoints' program: for one thread, count and copy the arguments."""
    body = b"".join(
        (
            # r1 = the array's only element (BPF_PSEUDO_MAP_VALUE)
            _instruction(0x18, 1, 2, immediate=notes_fd) + _instruction(0),
            _instruction(0x79, 2, 1) + _instruction(0x07, 2, immediate=1) + _instruction(0x7B, 1, 2),
            *(
                _instruction(0x79, 2, 6, 8 * argument) + _instruction(0x7B, 1, 2, 8 + 8 * place)
                for place, argument in enumerate(_ARGUMENTS)
            ),
        )
    )
    return b"".join(
        (
            _instruction(0xBF, 6, 1),  # r6 = r1, the arguments
            _instruction(0x85, immediate=_CALL_GET_CURRENT_PID_TGID),
            _instruction(0x56, 0, offset=len(body) // 8, immediate=thread),  # if w0 != thread: to the end
            body,
            _instruction(0xB7, 0),
            _instruction(0x95),
        )
    )


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """Encode struct bpf_insn."""
    return struct.pack("=BBhi", code, target | source << 4, offset, immediate)
