"""The native library as a shared object, for tests that call its functions with maps of their own."""

import ctypes
import errno
import functools
import importlib.util
import mmap
import os
import platform
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uxdp_runtime import abi

NATIVE_TESTS = Path(__file__).parent / "native"
MAP_KINDS = {
    "hash": 1,
    "array": 2,
    "prog_array": 3,
    "perf_event_array": 4,
    "percpu_hash": 5,
    "percpu_array": 6,
    "lru_hash": 9,
    "lru_percpu_hash": 10,
    "lpm_trie": 11,
    "devmap": 14,
    "cpumap": 16,
    "xskmap": 17,
    "devmap_hash": 25,
    "ringbuf": 27,
}
PER_CPU = ("percpu_hash", "percpu_array", "lru_percpu_hash")
NO_PREALLOC, NO_COMMON_LRU = 1, 2
ANY, NOEXIST, EXIST = 0, 1, 2


def clang() -> list[str]:
    """Return the command of ziglang's clang, without any system headers."""
    found = importlib.util.find_spec("ziglang")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    return [str(folder / "zig"), "clang", "-resource-dir", str(folder / "lib"), "-nostdlibinc"]


@functools.cache
def native_library() -> ctypes.CDLL:
    """Build the library once per test run, and declare its functions' types."""
    with tempfile.TemporaryDirectory(prefix="uxdp-native-test-") as folder:
        path, unlinked = Path(folder) / "module.so", Path(folder) / "module.o"
        target = f"{platform.machine()}-linux-gnu"
        compiler = [*clang(), "-target", target, "-fPIC", "-O2", "-std=gnu11", "-fno-strict-aliasing"]
        linker = [compiler[0], "ld.lld", "-shared", str(unlinked), "-o", str(path)]
        for command in ([*compiler, "-c", str(NATIVE_TESTS / "module.c"), "-o", str(unlinked)], linker):
            subprocess.run(command, check=True, capture_output=True, text=True)
        library = ctypes.CDLL(str(path))
    pointer, u64, s64, u32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64, ctypes.c_uint32
    types: dict[str, tuple[Any, list[Any]]] = {
        "uxdp_store_bytes": (u64, [pointer]),
        "uxdp_store_cpu_offset": (u64, [pointer, u32]),
        "uxdp_store_init": (s64, [pointer]),
        "uxdp_map_lookup": (s64, [pointer, pointer, pointer]),
        "uxdp_map_update": (s64, [pointer, pointer, pointer, u64]),
        "uxdp_map_delete": (s64, [pointer, pointer]),
        "uxdp_map_next_key": (s64, [pointer, pointer, pointer]),
        "uxdp_ringbuf_consume": (s64, [pointer, pointer, u64]),
        "uxdp_helper_map_lookup_elem": (pointer, [pointer, pointer]),
        "uxdp_helper_map_update_elem": (s64, [pointer, pointer, pointer, u64]),
        "uxdp_helper_map_delete_elem": (s64, [pointer, pointer]),
        "uxdp_helper_redirect": (u64, [u64, u64]),
        "uxdp_helper_redirect_map": (u64, [pointer, u64, u64]),
        "uxdp_helper_ringbuf_reserve": (pointer, [pointer, u64, u64]),
        "uxdp_helper_ringbuf_submit": (s64, [pointer, u64]),
        "uxdp_helper_ringbuf_discard": (s64, [pointer, u64]),
        "uxdp_helper_ringbuf_output": (s64, [pointer, pointer, u64, u64]),
        "uxdp_helper_ringbuf_query": (u64, [pointer, u64]),
        "uxdp_helper_perf_event_output": (s64, [pointer, pointer, u64, pointer, u64]),
        "uxdp_helper_xdp_adjust_head": (s64, [pointer, u64]),
        "uxdp_helper_xdp_adjust_meta": (s64, [pointer, u64]),
        "uxdp_helper_xdp_adjust_tail": (s64, [pointer, u64]),
        "uxdp_helper_xdp_get_buff_len": (u64, [pointer]),
        "uxdp_helper_xdp_load_bytes": (s64, [pointer, u64, pointer, u64]),
        "uxdp_helper_xdp_store_bytes": (s64, [pointer, u64, pointer, u64]),
        "uxdp_helper_csum_diff": (s64, [pointer, u64, pointer, u64, u64]),
        "uxdp_helper_ktime_get_ns": (u64, []),
        "uxdp_helper_ktime_get_boot_ns": (u64, []),
        "uxdp_helper_ktime_get_coarse_ns": (u64, []),
        "uxdp_helper_jiffies64": (u64, []),
        "uxdp_helper_get_prandom_u32": (u64, []),
        "uxdp_helper_get_smp_processor_id": (u64, []),
        "uxdp_helper_loop": (s64, [u64, pointer, pointer, u64]),
        "uxdp_loop_in_place": (s64, [u64, pointer, pointer, u64]),
        "uxdp_helper_trace_printk": (s64, [pointer, u64, u64, u64, u64]),
        "uxdp_tail_target": (s64, [pointer, pointer, u64]),
        "uxdp_run": (None, [pointer, u32]),
    }
    for name, (result, arguments) in types.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def worker() -> abi.Worker:
    """Return the library's one worker."""
    return abi.Worker.in_dll(native_library(), "uxdp_worker")


class OperationError(Exception):
    """A map operation failed; ``number`` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode.get(number, str(number)))
        self.number = number


@dataclass(frozen=True)
class Definition:
    """A map as bpf(2) creates it."""

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0

    def value_bytes(self, cpus: int) -> int:
        """Return how many bytes bpf(2) moves for one value."""
        return -(-self.value_size // 8) * 8 * cpus if self.kind in PER_CPU else self.value_size


class NativeMap:
    """One map of the native library: bpf(2)'s operations, and those of a program on worker ``cpu``."""

    def __init__(self, definition: Definition, cpus: int = 2, cpu: int = 0) -> None:
        self.definition = definition
        self.cpus = cpus
        self.cpu = cpu
        self.library = native_library()
        self.map = abi.Map(
            MAP_KINDS[definition.kind],
            definition.key_size,
            definition.value_size,
            definition.max_entries,
            definition.flags,
            7,
            cpus,
        )
        self._pointer = ctypes.byref(self.map)
        size = self.library.uxdp_store_bytes(self._pointer)
        if size == 0:
            raise OperationError(errno.EINVAL)
        self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.map.store = self.base
        self.map.cpu_store = self.base + self.library.uxdp_store_cpu_offset(self._pointer, cpu)
        self._check(self.library.uxdp_store_init(self._pointer))
        self._value = ctypes.create_string_buffer(max(definition.value_bytes(cpus), 8))

    def resident_bytes(self) -> int:
        """Return how much of the store has been touched."""
        vector = (ctypes.c_ubyte * -(-len(self.memory) // mmap.PAGESIZE))()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mincore(ctypes.c_void_p(self.base), ctypes.c_size_t(len(self.memory)), vector):
            raise OSError(ctypes.get_errno(), "mincore")
        return sum(page & 1 for page in vector) * mmap.PAGESIZE

    def lookup(self, key: bytes) -> bytes | None:
        """As BPF_MAP_LOOKUP_ELEM."""
        result = self.library.uxdp_map_lookup(self._pointer, key, self._value)
        if result == -errno.ENOENT:
            return None
        self._check(result)
        return self._value.raw[: self.definition.value_bytes(self.cpus)]

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """As BPF_MAP_UPDATE_ELEM."""
        self._check(self.library.uxdp_map_update(self._pointer, key, value, flags))

    def delete(self, key: bytes) -> None:
        """As BPF_MAP_DELETE_ELEM."""
        self._check(self.library.uxdp_map_delete(self._pointer, key))

    def next_key(self, key: bytes | None) -> bytes | None:
        """As BPF_MAP_GET_NEXT_KEY."""
        following = ctypes.create_string_buffer(max(self.definition.key_size, 1))
        result = self.library.uxdp_map_next_key(self._pointer, key, following)
        if result == -errno.ENOENT:
            return None
        self._check(result)
        return following.raw[: self.definition.key_size]

    def keys(self) -> list[bytes]:
        """Return all keys in the map's order."""
        found = []
        key = self.next_key(None)
        while key is not None:
            found.append(key)
            key = self.next_key(key)
        return found

    def program_lookup(self, key: bytes) -> int:
        """As bpf_map_lookup_elem: the address of the value, or 0."""
        return self.library.uxdp_helper_map_lookup_elem(self._pointer, key) or 0

    def program_value(self, key: bytes) -> bytes | None:
        """Return what bpf_map_lookup_elem points to."""
        address = self.program_lookup(key)
        return ctypes.string_at(address, self.definition.value_size) if address else None

    def program_update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """As bpf_map_update_elem."""
        worker().cpu = self.cpu
        self._check(self.library.uxdp_helper_map_update_elem(self._pointer, key, value, flags))

    def program_delete(self, key: bytes) -> None:
        """As bpf_map_delete_elem."""
        worker().cpu = self.cpu
        self._check(self.library.uxdp_helper_map_delete_elem(self._pointer, key))

    def consume(self, size: int = 1 << 16) -> list[bytes]:
        """Take the records out of a ring buffer."""
        buffer = ctypes.create_string_buffer(size)
        used = self.library.uxdp_ringbuf_consume(self._pointer, buffer, size)
        self._check(used)
        records, position = [], 0
        while position < used:
            length = int.from_bytes(buffer.raw[position : position + 4], "little")
            records.append(buffer.raw[position + 8 : position + 8 + length])
            position += 8 + -(-length // 8) * 8
        return records

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            raise OperationError(-result)


class KernelMap:
    """The same operations on a map of the kernel, through bpf(2)."""

    _SYSCALL = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    _CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY = range(5)

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.cpus = possible_cpus()
        d = definition
        attributes = b"".join(
            number.to_bytes(4, "little")
            for number in (MAP_KINDS[d.kind], d.key_size, d.value_size, d.max_entries, d.flags)
        )
        self.fd = self.bpf(self._CREATE, attributes)[0]
        self._value = ctypes.create_string_buffer(max(definition.value_bytes(self.cpus), 8))

    def close(self) -> None:
        """Close the descriptor, with which the map goes."""
        os.close(self.fd)

    def __enter__(self) -> "KernelMap":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def lookup(self, key: bytes) -> bytes | None:
        """BPF_MAP_LOOKUP_ELEM."""
        try:
            self._element(self._LOOKUP, key, self._value)
        except OperationError as error:
            if error.number == errno.ENOENT:
                return None
            raise
        return self._value.raw[: self.definition.value_bytes(self.cpus)]

    def update(self, key: bytes, value: bytes, flags: int = ANY) -> None:
        """BPF_MAP_UPDATE_ELEM."""
        self._element(self._UPDATE, key, ctypes.create_string_buffer(value, len(value)), flags)

    def delete(self, key: bytes) -> None:
        """BPF_MAP_DELETE_ELEM."""
        self._element(self._DELETE, key, None)

    def next_key(self, key: bytes | None) -> bytes | None:
        """BPF_MAP_GET_NEXT_KEY."""
        following = ctypes.create_string_buffer(max(self.definition.key_size, 1))
        try:
            self._element(self._NEXT_KEY, key, following)
        except OperationError as error:
            if error.number == errno.ENOENT:
                return None
            raise
        return following.raw[: self.definition.key_size]

    keys = NativeMap.keys

    def _element(self, command: int, key: bytes | None, value: Any, flags: int = 0) -> None:
        holder = ctypes.create_string_buffer(key, len(key)) if key is not None else None
        addresses = [ctypes.addressof(item) if item is not None else 0 for item in (holder, value)]
        attributes = self.fd.to_bytes(8, "little")
        attributes += b"".join(number.to_bytes(8, "little") for number in (*addresses, flags))
        self.bpf(command, attributes)

    @classmethod
    def bpf(cls, command: int, attributes: bytes) -> tuple[int, bytes]:
        """Make the system call; return its result and what it left in union bpf_attr."""
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
        result = libc.syscall(ctypes.c_long(cls._SYSCALL), ctypes.c_int(command), buffer, ctypes.c_uint(128))
        if result < 0:
            raise OperationError(ctypes.get_errno())
        return int(result), buffer.raw


def possible_cpus() -> int:
    """Return how many CPUs the kernel has slots for."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1
