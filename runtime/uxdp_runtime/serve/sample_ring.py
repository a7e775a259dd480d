"""One queue's samples in shared memory: frames as the program left them (native/ports/samples.h).

Whose memory is whose: a ring belongs to the control process, outlives data processes, and is written by the one that
serves, which must not be believed: lengths and numbers are cut to what the ring can hold.
"""

import ctypes
import mmap
from typing import Final

from ..frames.judged_frame import JudgedFrame
from ..ports.port_abi import SAMPLES, Sample, Samples
from .ports_library import ports_library

_DATA_BYTES: Final = Sample.data.size


class SampleRing:
    """One queue's samples in shared memory."""

    def __init__(self, every: int) -> None:
        """Make it.

        :param every: take one of so many frames, >= 1
        """
        self._memory = mmap.mmap(-1, ctypes.sizeof(Samples))  # shared with forked processes
        self.state = Samples.from_buffer(self._memory)
        self.state.every = every
        self.address = ctypes.addressof(self.state)
        self._consumer = 0
        library = ports_library()
        self._written = library.function("uxdp_samples_written", ctypes.c_uint64, ctypes.c_void_p)
        self._read = library.function("uxdp_samples_read", None, ctypes.c_void_p, ctypes.c_uint64)

    def take(self, interface: int, queue_id: int) -> list[JudgedFrame]:
        """Take out what is there.

        :param interface: what the frames shall say of their interface, its place among the file's
        """
        written = self._written(self.address)
        first = max(self._consumer, written - SAMPLES) if written > self._consumer else written
        frames = []
        for number in range(first, written):
            sample = self.state.slots[number % SAMPLES]
            captured = min(sample.captured, _DATA_BYTES)
            data = ctypes.string_at(ctypes.addressof(sample) + Sample.data.offset, captured)
            length = max(sample.len, captured)
            frames.append(JudgedFrame(interface, queue_id, sample.time_ns, sample.verdict, data, length))
        self._consumer = written
        self._read(self.address, written)
        return frames
