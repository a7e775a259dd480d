"""The kernel's side of a measurement: BPF_PROG_TEST_RUN, with another flow's frame in every repetition.

A small program of ours (native/bpf/bench_restore.bpf.c) runs first each time and tail-calls the one that is measured,
or an empty one. The difference is what the program costs; the system call, the loop around it and the restoring are in
both.
"""

import errno
import mmap
import struct
import time
from typing import Final, Self

from ..bpf import syscall
from ..bpf.libbpf import LibbpfObject
from ..bpf.maps import Map
from ..bpf.own_programs import own_program
from ..errors import BpfError
from ..verify import VerifiedProgram
from .workload import FlowFrame

_FIRST_KEY: Final = bytes(4)
_STATE: Final = struct.Struct("=7Q")
_HAS_FRAGS: Final = 1 << 5  # BPF_F_XDP_HAS_FRAGS, include/uapi/linux/bpf.h
_XDP_MD: Final = struct.Struct("=6I")


class KernelSide:
    """A verified program with frames of many flows. Close it, or use it as a context manager."""

    def __init__(self, program: VerifiedProgram, frame: FlowFrame, num_flows: int) -> None:
        """Load the program that restores frames.

        :raises UnsupportedFeatureError: this installation has not got it
        """
        self._frame = frame
        self._num_flows = num_flows
        self._loaded = LibbpfObject(own_program("bench_restore"), "bench")
        try:
            for item in self._loaded.programs:
                # A prog_array takes programs of one kind only.
                item.set_type(item.type, item.expected_attach_type, _HAS_FRAGS if "frags" in program.flags else 0)
            for table in self._loaded.maps:
                if table.name == "heads":
                    table.set_max_entries(num_flows)
            self._loaded.load()
            fds = {item.name: item.fd for item in self._loaded.programs}
            self._maps = {table.name: Map(table.fd, name=table.name) for table in self._loaded.maps}
            self._restore = fds["bench_restore"]
            self._programs = {"measured": program.fd, "empty": fds["bench_empty"]}
        except BaseException:
            self._loaded.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up our programs and maps."""
        self._loaded.close()

    def heads(self) -> mmap.mmap:
        """Return the memory of the frames' heads, which the kernel reads them from."""
        return self._maps["heads"].mmap()

    def time(self, frames: int) -> float:
        """Run the program on so many frames; return ns per frame, all included."""
        return self._timed("measured", frames)

    def time_empty(self, frames: int) -> float:
        """Do the same with an empty program."""
        return self._timed("empty", frames)

    def verdict(self) -> int:
        """Return the program's verdict on the frame of the flow that is next."""
        self._start("measured")
        return syscall.run_program(self._restore, self._frame.data, context=_context(self._frame.data)).retval

    def _start(self, which: str) -> None:
        self._maps["program"].update(_FIRST_KEY, struct.pack("=i", self._programs[which]))
        following = _STATE.unpack(self._maps["state"].lookup(_FIRST_KEY))[0]
        self._maps["state"].update(_FIRST_KEY, _STATE.pack(following, self._num_flows, 0, 0, 0, 0, 0))

    def _timed(self, which: str, frames: int) -> float:
        while True:
            self._start(which)
            start = time.thread_time_ns()
            try:
                syscall.run_program(self._restore, self._frame.data, context=_context(self._frame.data), repeat=frames)
            except BpfError as error:
                if error.errno != errno.EINTR:  # a signal ended the run early
                    raise
                continue
            return (time.thread_time_ns() - start) / frames


def _context(data: bytes) -> bytes:
    return _XDP_MD.pack(0, len(data), 0, 0, 0, 0)
