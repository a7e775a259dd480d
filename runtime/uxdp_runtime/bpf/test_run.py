"""Run frames through a loaded XDP program in the kernel, one at a time, without any interface.

BPF_PROG_TEST_RUN copies a frame into a page with 256 bytes of headroom, calls the program as a driver would, and gives
back the verdict, the frame and the context. What one has to know, and this module does:

- The kernel wants at least an Ethernet header, 14 bytes of it behind the metadata.
- Metadata lies in front of the frame. In the context that is given, ``data`` is its length and ``data_end`` that of
  everything; in the one that comes back too, because positions count from the metadata's beginning. Nothing but the
  context tells how much of the output is metadata.
- Output that does not fit its buffer is ENOSPC, after the program has run and written its maps; so the buffer is
  always larger than what a frame can grow to.
- The ingress interface is the loopback of the caller's network namespace, queue 0, unless the context names another; it
  must exist, and have that queue.
- With ``repeat`` the same memory is used again as the program left it. So times of a program that changes its frames
  are those of the frames that it makes; see ``Timing.stable``.
- The target of XDP_REDIRECT is not told. The verdict is. See redirect_probe.

References: net/bpf/test_run.c, bpf_prog_test_run_xdp; Documentation/bpf/bpf_prog_run.rst
"""

import errno
import os
import statistics
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from ..errors import BpfError, ParameterError
from . import syscall

MIN_FRAME_BYTES: Final = 14  # ETH_HLEN
METADATA_ALIGNMENT: Final = 4
# struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
XDP_MD: Final = struct.Struct("=6I")
# A frame grows by its headroom (256) and by what is left of its last page.
_GROWTH_BYTES: Final = 256 + 4096
# mov64 r0, XDP_PASS; exit
_EMPTY_PROGRAM: Final = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
_ROUNDS: Final = 5


class Verdict(IntEnum):
    """enum xdp_action of include/uapi/linux/bpf.h; other numbers count as ABORTED, but a program may return them."""

    ABORTED = 0
    DROP = 1
    PASS = 2
    TX = 3
    REDIRECT = 4


@dataclass(frozen=True, slots=True)
class Context:
    """struct xdp_md as the program left it; positions count in bytes from the beginning of the metadata."""

    data: int
    data_end: int
    data_meta: int
    ingress_ifindex: int
    rx_queue_index: int
    egress_ifindex: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program did with one frame. ``verdict`` is its result as it is, which may be no Verdict."""

    verdict: int
    frame: bytes
    metadata: bytes
    context: Context
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Mean time per frame, in the whole nanoseconds that the kernel rounds down to.

    ``net_ns`` is without what the kernel itself needs, as measured with an empty program.

    ``stable`` tells whether the frame's length and the verdict were the same for the first run and after all runs; if
    not, this is not the time of the frame that was given.
    """

    net_ns: float
    gross_ns: float
    empty_ns: float
    stable: bool


class TestRunner:
    """Runs frames through one XDP program. Close it, or use it as a context manager.

    The program's descriptor is borrowed.
    """

    __test__: Final = False  # for pytest, which takes what is called Test… for tests

    def __init__(self, program_fd: int) -> None:
        """Use a loaded XDP program, such as ``VerifiedProgram.fd``."""
        self._fd = program_fd
        self._empty_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the empty program that ``time`` loads."""
        if self._empty_fd >= 0:
            os.close(self._empty_fd)
            self._empty_fd = -1

    def run(self, frame: bytes, *, metadata: bytes = b"", ifindex: int = 0, queue: int = 0) -> Outcome:
        """Run the program on a frame, once.

        :param metadata: what lies in front of the frame, a multiple of 4 bytes; at most what headroom is left for
            beside struct xdp_frame (216 on Linux 6.18), with older kernels 32
        :param ifindex: the ingress interface; 0 stands for the loopback of this network namespace
        :raises ParameterError: a frame or metadata that no program can be run on
        :raises BpfError: ENODEV if there is no such interface, EINVAL if it has no such queue
        """
        return self._run(self._fd, frame, metadata=metadata, ifindex=ifindex, queue=queue, repeat=1)

    def time(self, frame: bytes, *, repeat: int = 100_000, metadata: bytes = b"") -> Timing:
        """Measure the program on a frame, and an empty program in turns with it; the medians of both.

        :param repeat: runs per round; the frame is not restored in between
        """
        if self._empty_fd < 0:
            self._empty_fd = syscall.load_program(_EMPTY_PROGRAM, license_text="GPL", name="empty")
        first = self._run(self._fd, frame, metadata=metadata, repeat=1)
        empty: list[int] = []
        gross: list[int] = []
        stable = True
        for _ in range(_ROUNDS):
            empty.append(self._run(self._empty_fd, frame, metadata=metadata, repeat=repeat).duration_ns)
            last = self._run(self._fd, frame, metadata=metadata, repeat=repeat)
            gross.append(last.duration_ns)
            stable &= (last.verdict, len(last.frame)) == (first.verdict, len(first.frame))
        middle, floor = statistics.median(gross), statistics.median(empty)
        return Timing(net_ns=middle - floor, gross_ns=middle, empty_ns=floor, stable=stable)

    def _run(
        self, fd: int, frame: bytes, *, metadata: bytes = b"", ifindex: int = 0, queue: int = 0, repeat: int = 1
    ) -> Outcome:
        if len(frame) < MIN_FRAME_BYTES:
            raise ParameterError(
                f"{len(frame)} bytes, the kernel runs frames of at least {MIN_FRAME_BYTES}", context="frame"
            )
        if len(metadata) % METADATA_ALIGNMENT:
            raise ParameterError(
                f"{len(metadata)} bytes, expected a multiple of {METADATA_ALIGNMENT}", context="metadata"
            )
        data = metadata + frame
        while True:
            try:
                result = syscall.run_program(
                    fd,
                    data,
                    context=XDP_MD.pack(len(metadata), len(data), 0, ifindex, queue, 0),
                    data_out_bytes=len(data) + _GROWTH_BYTES,
                    repeat=repeat,
                )
            except BpfError as error:
                # A signal ends a long measurement early; a single run is never interrupted.
                if error.errno != errno.EINTR:
                    raise
            else:
                break
        context = Context(*XDP_MD.unpack(result.context))
        return Outcome(
            verdict=result.retval,
            frame=result.data[context.data :],
            metadata=result.data[: context.data],
            context=context,
            duration_ns=result.duration_ns,
        )
