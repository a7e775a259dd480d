"""A frame in memory for the native library, with the room that BPF_PROG_TEST_RUN gives it."""

import ctypes
import mmap

from tests.native_library import NativeMap, native_library, worker
from uxdp_runtime import abi
from uxdp_runtime.native_module import CHUNK_BYTES, FrameBatch

PAGE_BYTES = 4096
TAIL_BYTES = 320  # SKB_DATA_ALIGN(sizeof(struct skb_shared_info))
MASK = (1 << 64) - 1


_placed: set[int] = set()  # first addresses of what PlacedBatch mapped; it stays until the process ends


class PlacedBatch(FrameBatch):
    """Memory for one frame at an address of our choice."""

    def __init__(self, address: int) -> None:
        super().__init__(1)
        self._memory = memoryview(_mapped(address)).cast("B")  # type: ignore[assignment]
        self._base = address


def _mapped(address: int) -> ctypes.Array[ctypes.c_uint8]:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for page in (address & -PAGE_BYTES, (address & -PAGE_BYTES) + PAGE_BYTES):
        # PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        if page not in _placed and libc.mmap(page, PAGE_BYTES, 3, 0x100022, -1, 0) != page:
            raise OSError(ctypes.get_errno(), f"no memory at {page:#x}")
        _placed.add(page)
    return (ctypes.c_uint8 * CHUNK_BYTES).from_address(address)


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
