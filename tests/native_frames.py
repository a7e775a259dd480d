"""A frame in memory for the native library, with the room that BPF_PROG_TEST_RUN gives it."""

import ctypes
import mmap

from tests.native_library import NativeMap, native_library, worker
from uxdp_runtime import abi

PAGE_BYTES = 4096
TAIL_BYTES = 320  # SKB_DATA_ALIGN(sizeof(struct skb_shared_info))
MASK = (1 << 64) - 1


class NativeFrame:
    """One frame behind 256 bytes of headroom, and its struct uxdp_frame."""

    def __init__(self, data: bytes) -> None:
        self._memory = mmap.mmap(-1, PAGE_BYTES)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        start = abi.HEADROOM
        self._memory[start : start + len(data)] = data
        self.frame = abi.Frame(hard_start=self.base, limit=self.base + PAGE_BYTES - TAIL_BYTES)
        self.frame.data = self.frame.data_meta = self.base + start
        self.frame.data_end = self.frame.data + len(data)
        self.pointer = ctypes.byref(self.frame)

    @property
    def data(self) -> bytes:
        """The frame's bytes."""
        return self._memory[self.frame.data - self.base : self.frame.data_end - self.base]

    @property
    def metadata(self) -> bytes:
        """The bytes in front of it."""
        return self._memory[self.frame.data_meta - self.base : self.frame.data - self.base]

    def make_current(self) -> None:
        """Let this be the frame that the worker is at."""
        worker().frame = ctypes.addressof(self.frame)

    def adjust(self, what: str, delta: int) -> int:
        """Call bpf_xdp_adjust_head, _meta or _tail."""
        helper = getattr(native_library(), f"uxdp_helper_xdp_adjust_{what}")
        return int(helper(self.pointer, delta & MASK))

    def load(self, offset: int, size: int) -> tuple[int, bytes]:
        """Call bpf_xdp_load_bytes."""
        buffer = ctypes.create_string_buffer(size)
        result = native_library().uxdp_helper_xdp_load_bytes(self.pointer, offset, buffer, size)
        return int(result), buffer.raw

    def store(self, offset: int, data: bytes) -> int:
        """Call bpf_xdp_store_bytes."""
        return int(native_library().uxdp_helper_xdp_store_bytes(self.pointer, offset, data, len(data)))

    def redirect_map(self, target: NativeMap, key: int, flags: int) -> int:
        """Call bpf_redirect_map."""
        self.make_current()
        return int(native_library().uxdp_helper_redirect_map(ctypes.byref(target.map), key, flags))
