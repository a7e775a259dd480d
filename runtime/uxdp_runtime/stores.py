"""The stores: native memory of a program's maps, and the control plane's way to them.

A store is plain memory of this process, private or shared, that compiled programs and the control library's functions
work on. Pages are touched when they are used: a map of tens of millions of entries costs what is in it. Results and
errno values of the operations are those of bpf(2).
"""

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from uxdp_bundle.bpf_object import STT_FUNC, BpfObject
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES

from . import abi
from .compile.compiler import LIBC, NATIVE_FOLDER, writable_variables
from .compile.definitions import CPU_STORE, NUM_CPUS, STORE
from .compile.loader import LoadedObject
from .compile.names import OWN
from .compile.places import place_of
from .errors import ParameterError

_PER_CPU = frozenset({"percpu_array", "percpu_hash", "lru_percpu_hash"})
_MAP_NORESERVE = 0x4000  # include/uapi/asm-generic/mman-common.h; in Python only since 3.13
_POINTER_BYTES = 8
_HUGE_PAGE_BYTES = 2 << 20
_HUGE_SHARE = 64  # of the machine's memory: one map is at most so little of it in huge pages
_ITEMS_BYTES = 1 << 18  # of elements, read at once
_RECORD_HEADER_BYTES = 8
_RING_OFFSET = 3 * 4096  # offsetof(struct ringbuf, data), native/maps/ringbuf.h
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
        self.next_key = function("uxdp_map_next_key", number, pointer, pointer, pointer)
        self.read = function(
            *("uxdp_map_read", number, pointer, pointer, ctypes.c_bool, pointer, pointer, ctypes.c_uint64)
        )
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

    @property
    def shared_memory(self) -> StoreMemory:
        """The memory and its descriptor, borrowed until the stores are closed."""
        return StoreMemory(self.memory, self.fd)

    @property
    def cpus(self) -> int:
        """How many values an element of a per-CPU map has."""
        return int(self.descriptor.num_cpus)

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
        return value.raw[: self.value_bytes]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value of a key; ``flags`` as bpf(2): 0 any, 1 only new, 2 only existing.

        :raises MapOperationError: as the kernel's map would refuse it
        """
        if len(value) != self.value_bytes:
            raise MapOperationError(errno.EINVAL, self.definition.name)
        self._check(self._control.update(ctypes.byref(self.descriptor), self._key(key), value, flags))

    def delete(self, key: bytes) -> None:
        """Delete a key.

        :raises MapOperationError: ENOENT if it is not there, EINVAL if the map cannot delete
        """
        self._check(self._control.delete(ctypes.byref(self.descriptor), self._key(key)))

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

        :param cursor: None for the first ones, or what the call before returned
        """
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
                some_values[index * value_bytes : (index + 1) * value_bytes],
            )
            for index in range(read)
        ]
        return items, place.raw[:key_size] if read == count else None

    def has_memory_of(self, other: "Store") -> bool:
        """Whether this store's memory is the same as another's of the same definition, byte for byte."""
        pieces = range(0, len(self.memory), _PIECE_BYTES)
        return all(self.memory[at : at + _PIECE_BYTES] == other.memory[at : at + _PIECE_BYTES] for at in pieces)

    def read_records(self, position: int) -> tuple[list[bytes], int]:
        """Return the records of a ring buffer from a position on, and the position behind them; they stay in it."""
        end = ctypes.c_uint64(position)
        descriptor, read = ctypes.byref(self.descriptor), self._control.ringbuf_read
        return self._records(lambda buffer, size: read(descriptor, ctypes.byref(end), buffer, size)), end.value

    def consume_records(self) -> list[bytes]:
        """Take all records out of a ring buffer."""
        descriptor, consume = ctypes.byref(self.descriptor), self._control.ringbuf_consume
        return self._records(lambda buffer, size: consume(descriptor, buffer, size))

    def fill_ring(self, byte: int) -> None:
        """Fill the room of a ring buffer that holds no record with a byte: what a record's bytes are before it writes
        them."""
        size = 2 * self.definition.max_entries
        self.memory[_RING_OFFSET : _RING_OFFSET + size] = bytes([byte]) * size

    def _records(self, read: Callable[[Any, int], int]) -> list[bytes]:
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
        return records

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.definition.key_size:
            raise MapOperationError(errno.EINVAL, self.definition.name)
        return key

    def _check(self, result: int) -> None:
        if result < 0:
            raise MapOperationError(-result, self.definition.name)


def check_maps(obj: bytes, maps: Sequence[MapDefinition], control: ControlLibrary) -> None:
    """Refuse maps that can have no store, before anything is compiled for them.

    :param obj: the eBPF object, which tells where a map is used
    :raises UnsupportedFeatureError: of the first such map; ``context`` is its first use
    """
    for definition in maps:
        if not definition.name.startswith("."):
            descriptor = _descriptor(definition, 0, 1)
            if control.store_bytes(ctypes.byref(descriptor)) == 0:
                raise _unsupported(definition, place_of(obj, definition.name))


def _descriptor(definition: MapDefinition, number: int, num_cpus: int) -> abi.Map:
    if definition.type not in MAP_TYPES:
        raise UnsupportedFeatureError(definition.type, "no such map type", context=f"map {definition.name}")
    return abi.Map(
        kind=MAP_TYPES.index(definition.type),
        key_size=definition.key_size,
        value_size=definition.value_size,
        max_entries=definition.max_entries,
        flags=definition.flags,
        id=number,
        num_cpus=num_cpus,
    )


def _unsupported(definition: MapDefinition, place: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"map type {definition.type}",
        f"no native implementation for the definition of map {definition.name}",
        context=place or f"map {definition.name}",
    )


class Stores:
    """The stores of all maps of one object, and its writable global data."""

    def __init__(
        self,
        obj: bytes,
        maps: Sequence[MapDefinition],
        num_cpus: int,
        control: ControlLibrary,
        *,
        given: Mapping[str, mmap.mmap] = MappingProxyType({}),
        kept: Mapping[str, StoreMemory] = MappingProxyType({}),
        shared: bool = False,
    ) -> None:
        """Allocate and prepare the stores.

        :param obj: the eBPF object, for the initial content of global data
        :param num_cpus: number of workers: slots of per-CPU maps
        :param given: memory to use for maps and sections, by name, with its content: arrays that the kernel shares
        :param kept: memory of stores of the same definitions and number of workers, which is taken over as it is;
            descriptors are duplicated
        :param shared: let processes that are forked from this one, or get a descriptor, share the memory
        :raises UnsupportedFeatureError: a map that has no native implementation, or a definition that is not valid
        """
        self.num_cpus = num_cpus
        self._control = control
        self._shared = shared
        self._kept = frozenset(kept)
        self._stores: dict[str, Store] = {}
        self._sections: dict[str, mmap.mmap] = {}
        self._variables = writable_variables(obj)
        declared = [definition for definition in maps if not definition.name.startswith(".")]
        for number, definition in enumerate(declared):
            self._stores[definition.name] = self._allocate(
                definition, number, given.get(definition.name), kept.get(definition.name)
            )
        parsed = BpfObject(obj)
        for definition in maps:
            section = parsed.section(definition.name) if definition.name.startswith(".") else None
            if section is not None:
                if definition.name in given:
                    self._sections[definition.name] = given[definition.name]
                    continue
                memory = mmap.mmap(-1, definition.value_size)
                memory[: len(section.data)] = section.data
                self._sections[definition.name] = memory

    def link_programs(self, obj: bytes, programs: Sequence[str]) -> None:
        """Put the programs into prog_arrays that their definitions name, as libbpf does after loading.

        Prog_arrays that were kept stay as they are.

        :param programs: the object's programs in the order of their numbers; a slot holds its program's number + 1
        """
        for name, index, program in _initial_programs(BpfObject(obj)):
            if name in self._stores and name not in self._kept and program in programs:
                self._stores[name].update(struct.pack("=I", index), struct.pack("=I", programs.index(program) + 1))

    def __getitem__(self, name: str) -> Store:
        return self._stores[name]

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores.values())

    def update(self, name: str, key: bytes, value: bytes) -> None:
        """Give a map an element, or a section of global data its content, as bpf(2) takes them.

        :raises ParameterError: the section holds constants
        """
        if name in self.sections:
            self._sections[name][: len(value)] = value
        elif name in self._stores:
            self._stores[name].update(key, value)
        else:
            raise ParameterError("holds constants", context=f"map {name}", remedy="set them with --param NAME=VALUE")

    def descriptors(self) -> "ctypes.Array[abi.Map]":
        """Return the maps' definitions with where their memory is, in the order of their numbers."""
        return (abi.Map * len(self._stores))(*(store.descriptor for store in self._stores.values()))

    def close(self) -> None:
        """Close the descriptors of the memory; what is mapped stays mapped."""
        for store in self._stores.values():
            if store.fd >= 0:
                os.close(store.fd)
                store.fd = -1

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the sections of global data that programs may write."""
        return tuple(name for name in self._sections if not name.startswith(".rodata"))

    def section(self, name: str) -> mmap.mmap:
        """Return the memory of a section of global data, such as ``.bss``."""
        return self._sections[name]

    def memory(self) -> list[tuple[int, int]]:
        """Return (address, bytes) of all stores and sections of global data."""
        pieces = (*(store.memory for store in self._stores.values()), *self._sections.values())
        return [(_address(piece), len(piece)) for piece in pieces]

    def symbols(self, worker: int) -> Mapping[str, int]:
        """Return the addresses that a program's symbols have for one worker."""
        symbols = {NUM_CPUS: self.num_cpus}
        for name, store in self._stores.items():
            base = int(store.descriptor.store)
            symbols[STORE + name] = base
            symbols[CPU_STORE + name] = base + self._control.store_cpu_offset(ctypes.byref(store.descriptor), worker)
        for name, (section, offset) in self._variables.items():
            symbols[OWN + name] = _address(self._sections[section]) + offset
        return symbols

    def _allocate(
        self, definition: MapDefinition, number: int, given: mmap.mmap | None, kept: StoreMemory | None
    ) -> Store:
        descriptor = _descriptor(definition, number, self.num_cpus)
        size = self._control.store_bytes(ctypes.byref(descriptor))
        if size == 0:
            raise _unsupported(definition, "")
        if kept is not None:
            if len(kept.memory) != size:
                raise MapOperationError(errno.EINVAL, definition.name)
            memory, fd = kept.memory, os.dup(kept.fd) if kept.fd >= 0 else -1
        else:
            memory, fd = (given, -1) if given is not None else self._new_memory(definition.name, size)
        descriptor.store = descriptor.cpu_store = _address(memory)
        store = Store(definition, descriptor, self._control, memory, fd)
        if kept is not None:
            return store
        result = self._control.store_init(ctypes.byref(descriptor))
        if result < 0:
            raise MapOperationError(-result, definition.name)
        return store

    def _new_memory(self, name: str, size: int) -> StoreMemory:
        """Return memory whose pages exist when they are touched, whatever the map could hold.

        Neither small nor a large part of the machine's, it is of huge pages if the kernel has them: otherwise a lookup
        in a large map waits for the page table, too. But whoever touches one byte gets all of its page, and a map that
        could hold tens of millions of elements must not cost what it could hold.
        """
        if self._shared:
            fd = os.memfd_create(f"uxdp-{name}", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
            made = StoreMemory(mmap.mmap(fd, size, flags=mmap.MAP_SHARED | _MAP_NORESERVE), fd)
        else:
            made = StoreMemory(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE))
        if _HUGE_PAGE_BYTES <= size <= _memory_bytes() // _HUGE_SHARE:
            with suppress(OSError):  # a kernel without them has smaller pages, and everything works
                made.memory.madvise(mmap.MADV_HUGEPAGE)
        return made


def initial_programs(obj: bytes) -> dict[str, dict[bytes, str]]:
    """Return the programs that an object's prog_arrays lead to from the start, by map and key."""
    found: dict[str, dict[bytes, str]] = {}
    for name, index, program in _initial_programs(BpfObject(obj)):
        found.setdefault(name, {})[struct.pack("=I", index)] = program
    return found


def _initial_programs(parsed: BpfObject) -> Iterator[tuple[str, int, str]]:
    """Yield (map, index, program) of ``.values = { [index] = &program }``.

    Source: libbpf, bpf_object__collect_map_relos
    """
    section = parsed.section(".maps")
    if section is None or parsed.btf is None:
        return
    structures = {
        variable.name: parsed.btf.resolve(variable.size_or_type) for variable in parsed.btf.data_section(".maps")
    }
    places = [symbol for symbol in parsed.symbols if symbol.section == section.index and symbol.name in structures]
    for offset, relocation in parsed.relocations.get(section.index, {}).items():
        for place in places:
            if relocation.symbol.type == STT_FUNC and place.value <= offset < place.value + place.size:
                members = {name: bits // 8 for name, _type, bits in parsed.btf.members(structures[place.name])}
                yield place.name, (offset - place.value - members["values"]) // _POINTER_BYTES, relocation.symbol.name


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
