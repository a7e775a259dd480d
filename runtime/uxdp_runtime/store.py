"""One store: native memory of a map, and the control plane's way to it; results and errno are those of bpf(2)."""

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import BPF_F_WRONLY, MAP_TYPES

from . import abi
from .bpf.timer_fields import TIMER_BYTES
from .compile.compiler import LIBC, NATIVE_FOLDER
from .compile.loader import LoadedObject

USER_RINGBUF = "user_ringbuf"  # an update puts a record of any length into it
SEQUENCES = frozenset({"queue", "stack"})  # maps whose values have an order, and no keys
_PER_CPU = frozenset({"percpu_array", "percpu_hash", "lru_percpu_hash"})
_ITEMS_BYTES = 1 << 18  # of elements, read at once
_RECORD_HEADER_BYTES = 8
_RING_OFFSET = 3 * 4096  # offsetof(struct ringbuf, data), native/maps/ringbuf.h
_RINGBUF = MAP_TYPES.index("ringbuf")
_PERF_BYTES = 4 << 20  # UXDP_PERF_BYTES, native/maps/perf.h
_LOST_OFFSET = 32  # offsetof(struct ringbuf, lost)
_PIECE_BYTES = 1 << 20
_RECORDS_BYTES = 1 << 16  # of a ring buffer's records, read at once
_VALUE_ALIGNMENT = 8  # bpf(2) rounds each CPU's value up to this


class MapOperationError(UxdpError, OSError):
    """A map operation failed as bpf(2) would; ``errno`` says how, ``context`` is the map's name."""

    def __init__(self, number: int, name: str) -> None:
        super().__init__(os.strerror(number), context=f"map {name}")
        self.errno = number


class ControlLibrary:
    """The native library's functions for maps of any definition; loaded once per process."""

    def __init__(self, data: bytes) -> None:
        """Load the object that was compiled with the wheel."""
        self._worker = abi.Worker(num_cpus=1)
        self._object = LoadedObject(data, {"uxdp_worker": ctypes.addressof(self._worker), **libc_symbols()})
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        function = self._object.function
        self.store_bytes = function("uxdp_store_bytes", ctypes.c_uint64, pointer)
        self.store_cpu_offset = function("uxdp_store_cpu_offset", ctypes.c_uint64, pointer, ctypes.c_uint32)
        self.store_init = function("uxdp_store_init", number, pointer)
        self.lookup = function("uxdp_map_lookup", number, pointer, pointer, pointer)
        self.update = function("uxdp_map_update", number, pointer, pointer, pointer, ctypes.c_uint64)
        self.delete = function("uxdp_map_delete", number, pointer, pointer)
        self.pop = function("uxdp_map_pop", number, pointer, pointer)
        self.read_value = function("uxdp_map_read_value", number, pointer, ctypes.c_uint64, pointer)
        self.produce = function("uxdp_ringbuf_produce", number, pointer, pointer, ctypes.c_uint64)
        self.next_key = function("uxdp_map_next_key", number, pointer, pointer, pointer)
        self.read = function(
            *("uxdp_map_read", number, pointer, pointer, ctypes.c_bool, pointer, pointer, ctypes.c_uint64)
        )
        self.timers_bytes = function(
            *("uxdp_timers_bytes", ctypes.c_uint64, pointer, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32)
        )
        self.timers_init = function(
            *("uxdp_timers_init", None, pointer, pointer, ctypes.c_uint32, ctypes.c_char_p),
            *(ctypes.c_uint32, ctypes.c_uint64),
        )
        self.timers_next = function("uxdp_timers_next", ctypes.c_uint64, pointer, ctypes.c_uint32)
        self.ringbuf_read = function("uxdp_ringbuf_read", number, pointer, pointer, pointer, ctypes.c_uint64)
        self.ringbuf_consume = function("uxdp_ringbuf_consume", number, pointer, pointer, ctypes.c_uint64)


def control_library() -> ControlLibrary:
    """Return the control library of this machine, which is compiled when the wheel is built.

    :raises UnsupportedFeatureError: there is none for this machine
    """
    path = NATIVE_FOLDER / f"control-{platform.machine()}.o"
    try:
        return ControlLibrary(path.read_bytes())
    except FileNotFoundError as cause:
        raise UnsupportedFeatureError(
            platform.machine(),
            "this installation has no native library for it",
            context=str(path),
            remedy="reinstall uxdp",
        ) from cause


def libc_symbols() -> dict[str, int]:
    """Return the addresses of the libc functions that native code may call."""
    libc = ctypes.CDLL(None)
    return {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in LIBC}


class StoreMemory(NamedTuple):
    """A store's memory, and the descriptor by which other processes can map it; -1: there is none."""

    memory: mmap.mmap
    fd: int = -1


@dataclass(slots=True)
class Store:
    """One map with its memory; all operations take and give bytes as bpf(2) does."""

    definition: MapDefinition
    descriptor: abi.Map
    _control: ControlLibrary
    memory: mmap.mmap
    fd: int = -1  # of the memory; -1: private, or the kernel's
    # Where in values a struct bpf_timer is, which nobody but native code may see; -1: there is none.
    timer: int = field(default=-1, kw_only=True)

    @property
    def shared_memory(self) -> StoreMemory:
        """The memory and its descriptor, borrowed until the stores are closed."""
        return StoreMemory(self.memory, self.fd)

    @property
    def cpus(self) -> int:
        """How many values an element of a per-CPU map has."""
        return int(self.descriptor.num_cpus)

    @property
    def has_lock(self) -> bool:
        """Whether values have a struct bpf_spin_lock."""
        return self.definition.type in ("hash", "array") and self.descriptor.extra != 0

    @property
    def is_readable(self) -> bool:
        """Whether anybody but programs may read it: nobody may read a map with BPF_F_WRONLY."""
        return not self.definition.flags & BPF_F_WRONLY

    @property
    def value_bytes(self) -> int:
        """Bytes that an operation moves: for per-CPU maps one value of 8-byte multiples for every CPU."""
        if self.definition.type not in _PER_CPU:
            return self.definition.value_size
        rounded = self.definition.value_size + -self.definition.value_size % _VALUE_ALIGNMENT
        return rounded * self.cpus

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""
        value = ctypes.create_string_buffer(max(self.value_bytes, 1))
        result = self._control.lookup(ctypes.byref(self.descriptor), self._key(key), value)
        if result == -errno.ENOENT:
            return None
        self._check(result)
        return self._without_timer(value.raw[: self.value_bytes])

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value of a key; ``flags`` as bpf(2): 0 any, 1 only new, 2 only existing.

        :raises MapOperationError: as the kernel's map would refuse it
        """
        if self.definition.type == USER_RINGBUF:
            self._check(self._control.produce(ctypes.byref(self.descriptor), value, len(value)))
            return
        if len(value) != self.value_bytes:
            raise MapOperationError(errno.EINVAL, self.definition.name)
        # The kernel keeps the timer's bytes to itself, too, and cancels the timer.
        value = self._without_timer(value)
        self._check(self._control.update(ctypes.byref(self.descriptor), self._key(key), value, flags))

    def delete(self, key: bytes) -> None:
        """Delete a key.

        :raises MapOperationError: ENOENT if it is not there, EINVAL if the map cannot delete
        """
        self._check(self._control.delete(ctypes.byref(self.descriptor), self._key(key)))

    def pop(self) -> bytes | None:
        """Take the next value out of a queue or stack; None if it is empty."""
        value = ctypes.create_string_buffer(self.value_bytes)
        result = self._control.pop(ctypes.byref(self.descriptor), value)
        if result == -errno.ENOENT:
            return None
        self._check(result)
        return value.raw[: self.value_bytes]

    def has_value(self, value: bytes) -> bool:
        """Whether a Bloom filter may have seen a value."""
        if len(value) != self.value_bytes:
            raise MapOperationError(errno.EINVAL, self.definition.name)
        result = self._control.lookup(ctypes.byref(self.descriptor), b"", value)
        if result != -errno.ENOENT:
            self._check(result)
        return result == 0

    def keys(self) -> Iterator[bytes]:
        """Yield all keys; what is changed meanwhile may be missed or come twice, as in the kernel."""
        following = ctypes.create_string_buffer(max(self.definition.key_size, 1))
        key: bytes | None = None
        while True:
            result = self._control.next_key(ctypes.byref(self.descriptor), key, following)
            if result == -errno.ENOENT:
                return
            self._check(result)
            key = following.raw[: self.definition.key_size]
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all (key, value) pairs; what is changed meanwhile may be missed or come twice, as in the kernel."""
        count = min(self.definition.max_entries, _ITEMS_BYTES // max(1, self.definition.key_size + self.value_bytes))
        cursor: bytes | None = None
        while True:
            items, cursor = self.page(cursor, max(1, count))
            yield from items
            if cursor is None:
                return

    def page(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Return up to ``count`` (key, value) pairs, and where the next ones begin; None behind the last.

        Those of a queue or stack have no key, and come in the order in which they were pushed.

        :param cursor: None for the first ones, or what the call before returned
        """
        if self.definition.type in SEQUENCES:
            return self._page_of_sequence(cursor, count)
        key_size, value_bytes = self.definition.key_size, self.value_bytes
        place = ctypes.create_string_buffer(cursor or b"", max(key_size, 1))
        keys = ctypes.create_string_buffer(max(count * key_size, 1))
        values = ctypes.create_string_buffer(max(count * value_bytes, 1))
        read = self._control.read(ctypes.byref(self.descriptor), place, cursor is None, keys, values, count)
        self._check(read)
        some_keys, some_values = keys.raw, values.raw
        items = [
            (
                some_keys[index * key_size : (index + 1) * key_size],
                self._without_timer(some_values[index * value_bytes : (index + 1) * value_bytes]),
            )
            for index in range(read)
        ]
        return items, place.raw[:key_size] if read == count else None

    def _page_of_sequence(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        start = int.from_bytes(cursor or b"", "little")
        value = ctypes.create_string_buffer(self.value_bytes)
        items: list[tuple[bytes, bytes]] = []
        for place in range(start, start + count):
            result = self._control.read_value(ctypes.byref(self.descriptor), place, value)
            if result == -errno.ENOENT:
                return items, None
            self._check(result)
            items.append((b"", value.raw[: self.value_bytes]))
        return items, (start + count).to_bytes(8, "little")

    def has_memory_of(self, other: "Store") -> bool:
        """Whether this store's memory is the same as another's of the same definition, byte for byte."""
        pieces = range(0, len(self.memory), _PIECE_BYTES)
        return all(self.memory[at : at + _PIECE_BYTES] == other.memory[at : at + _PIECE_BYTES] for at in pieces)

    def read_records(self, position: int) -> tuple[list[bytes], int]:
        """Return the records of a ring buffer from a position on, and the position behind them; they stay in it."""
        end = ctypes.c_uint64(position)
        descriptor, read = ctypes.byref(self.descriptor), self._control.ringbuf_read
        return self._records(lambda buffer, size: read(descriptor, ctypes.byref(end), buffer, size)), end.value

    def consume_records(self, *, all_of_them: bool = True) -> list[bytes]:
        """Take all records out of a ring buffer, or some."""
        descriptor, consume = ctypes.byref(self.descriptor), self._control.ringbuf_consume
        return self._records(lambda buffer, size: consume(descriptor, buffer, size), all_of_them=all_of_them)

    def perf_rings(self) -> "list[Store]":
        """Return the rings that a PERF_EVENT_ARRAY has, one for each worker, as ring buffers."""
        rings = []
        definition = replace(self.definition, type="ringbuf", key_size=0, value_size=0, max_entries=_PERF_BYTES)
        for cpu in range(self.cpus):
            descriptor = abi.Map.from_buffer_copy(self.descriptor)
            descriptor.kind, descriptor.max_entries = _RINGBUF, _PERF_BYTES
            descriptor.store += self._control.store_cpu_offset(ctypes.byref(self.descriptor), cpu)
            rings.append(Store(definition, descriptor, self._control, self.memory))
        return rings

    def take_records(self) -> list[bytes]:
        """Take some records out of a ring buffer or a PERF_EVENT_ARRAY, _RECORDS_BYTES of each ring at most."""
        rings = self.perf_rings() if self.definition.type == "perf_event_array" else [self]
        return [record for ring in rings for record in ring.consume_records(all_of_them=False)]

    def lost_records(self) -> int:
        """Return how many samples of a PERF_EVENT_ARRAY found no room."""
        rings = self.perf_rings() if self.definition.type == "perf_event_array" else []
        return sum(struct.unpack("=Q", ctypes.string_at(ring.descriptor.store + _LOST_OFFSET, 8))[0] for ring in rings)

    def fill_ring(self, byte: int) -> None:
        """Fill the room of a ring buffer that holds no record with a byte: what a record's bytes are before it writes
        them."""
        size = 2 * self.definition.max_entries
        self.memory[_RING_OFFSET : _RING_OFFSET + size] = bytes([byte]) * size

    def _records(self, read: Callable[[Any, int], int], *, all_of_them: bool = True) -> list[bytes]:
        """Read until there is nothing more: each record behind its length, a zero, and filled up to 8 bytes."""
        records: list[bytes] = []
        buffer = ctypes.create_string_buffer(min(_RECORDS_BYTES, self.definition.max_entries))
        while used := read(buffer, len(buffer)):
            if used == -errno.ENOSPC:
                buffer = ctypes.create_string_buffer(2 * len(buffer))
                continue
            self._check(used)
            at = 0
            while at < used:
                (size,) = struct.unpack_from("=I", buffer, at)
                at += _RECORD_HEADER_BYTES
                records.append(ctypes.string_at(ctypes.addressof(buffer) + at, size))
                at += size + -size % _VALUE_ALIGNMENT
            if not all_of_them:
                break
        return records

    def _without_timer(self, value: bytes) -> bytes:
        if self.timer < 0:
            return value
        return value[: self.timer] + bytes(TIMER_BYTES) + value[self.timer + TIMER_BYTES :]

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.definition.key_size:
            raise MapOperationError(errno.EINVAL, self.definition.name)
        return key

    def _check(self, result: int) -> None:
        if result < 0:
            raise MapOperationError(-result, self.definition.name)
