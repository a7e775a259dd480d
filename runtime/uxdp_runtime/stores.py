"""The stores: native memory of a program's maps, and the control plane's way to them.

A store is plain memory of this process, private or shared, that compiled programs and the control library's functions
work on. Pages are touched when they are used: a map of tens of millions of entries costs what is in it. Results and
errno values of the operations are those of bpf(2).
"""

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from uxdp_bundle.bpf_object import STT_FUNC, STT_OBJECT, BpfObject
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES

from . import abi
from .bpf.inner_maps import split_inner_name
from .bpf.timer_fields import refused_fields, timer_fields
from .compile.compiler import with_extra, writable_variables
from .compile.definitions import CPU_STORE, NUM_CPUS, STORE
from .compile.inner_maps import OUTER_TYPES, check_inner
from .compile.names import OWN
from .compile.places import place_of
from .compile.unsupported_maps import reason_of
from .errors import ParameterError
from .inner_stores import POOL, OuterStore, Pool, reserve
from .store import ControlLibrary, MapOperationError, Store, StoreMemory, control_library, libc_symbols

_MAP_NORESERVE = 0x4000  # include/uapi/asm-generic/mman-common.h; in Python only since 3.13
_POINTER_BYTES = 8
_MAX_EXTRA = 0xFFFF  # struct uxdp_map has 16 bits for it
_HUGE_PAGE_BYTES = 2 << 20
_HUGE_SHARE = 64  # of the machine's memory: one map is at most so little of it in huge pages
_ENTRY = struct.Struct("=I")  # of a map of maps

__all__ = [
    "POOL",
    "ControlLibrary",
    "MapOperationError",
    "OuterStore",
    "Store",
    "StoreMemory",
    "Stores",
    "check_maps",
    "control_library",
    "initial_programs",
    "libc_symbols",
]


def check_maps(obj: bytes, maps: Sequence[MapDefinition], control: ControlLibrary) -> None:
    """Refuse maps that can have no store, before anything is compiled for them.

    :param obj: the eBPF object, which tells where a map is used
    :raises UnsupportedFeatureError: of the first such map; ``context`` is its first use
    """
    refused = refused_fields(BpfObject(obj))
    for definition, extra in with_extra(maps, obj):
        if not definition.name.startswith("."):
            if definition.name in refused:
                raise UnsupportedFeatureError(
                    f"{refused[definition.name]} in a map's values",
                    "native code has none of the kernel's objects, and no locks and timers in maps in maps",
                    context=place_of(obj, definition.name) or f"map {definition.name}",
                )
            if extra > _MAX_EXTRA:
                raise UnsupportedFeatureError(
                    "bpf_spin_lock", f"more than {_MAX_EXTRA} bytes into a value", context=f"map {definition.name}"
                )
            descriptor = _descriptor(definition, 0, 1, extra)
            if control.store_bytes(ctypes.byref(descriptor)) == 0:
                raise _unsupported(definition, place_of(obj, definition.name))
            if definition.type in OUTER_TYPES:
                check_inner(definition, place_of(obj, definition.name))


def _descriptor(definition: MapDefinition, number: int, num_cpus: int, extra: int) -> abi.Map:
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
        extra=extra,
    )


def _unsupported(definition: MapDefinition, place: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(
        f"map type {definition.type}",
        reason_of(definition.type, definition.name),
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
        self._extra = {definition.name: extra for definition, extra in with_extra(declared, obj)}
        self._pool_memory: StoreMemory | None = None
        self._pool: Pool | None = None
        if any(definition.type in OUTER_TYPES for definition in declared):
            self._make_pool(kept.get(POOL))
        for number, definition in enumerate(declared):
            self._stores[definition.name] = self._allocate(
                definition, number, given.get(definition.name), kept.get(definition.name)
            )
        for store in self._stores.values():
            if isinstance(store, OuterStore):
                store.declared = tuple(self._stores.values())
        if self._pool is not None:
            self._pool.keep_only({entry for outer in self.outers for _key, entry in outer.entries()})
        for outer_name, index, inner in _initial_maps(BpfObject(obj)):
            if outer_name not in kept:
                number = [definition.name for definition in declared].index(inner) + 1
                self._stores[outer_name].update(struct.pack("=I", index), _ENTRY.pack(number))
        parsed = BpfObject(obj)
        self._timers = self._new_timers(timer_fields(parsed))
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
        inner = split_inner_name(name)
        if inner is None:
            return self._stores[name]
        outer = self._stores[inner[0]]
        if not isinstance(outer, OuterStore):
            raise MapOperationError(errno.EINVAL, name)
        return outer.inner(inner[1])

    @property
    def outers(self) -> "tuple[OuterStore, ...]":
        """The maps of maps."""
        return tuple(store for store in self._stores.values() if isinstance(store, OuterStore))

    def made(self) -> Iterator[Store]:
        """Yield the maps in maps of maps that were made."""
        for outer in self.outers:
            for key, _entry in outer.entries():
                inner = outer.inner(key)
                if inner.definition.name not in self._stores:
                    yield inner

    @property
    def inner_memory(self) -> StoreMemory | None:
        """The memory of inner maps that were made, borrowed until the stores are closed; None: there is none.

        Whoever keeps a map of maps keeps it, too, under the name POOL.
        """
        return self._pool_memory

    def __iter__(self) -> Iterator[Store]:
        return iter(self._stores.values())

    def update(self, name: str, key: bytes, value: bytes) -> None:
        """Give a map an element, or a section of global data its content, as bpf(2) takes them.

        :raises ParameterError: the section holds constants
        """
        if name in self.sections:
            self._sections[name][: len(value)] = value
        elif name in self._stores or split_inner_name(name) is not None:
            self[name].update(key, value)
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
        if self._pool_memory is not None and self._pool_memory.fd >= 0:
            os.close(self._pool_memory.fd)
            self._pool_memory = StoreMemory(self._pool_memory.memory)

    @property
    def sections(self) -> tuple[str, ...]:
        """The names of the sections of global data that programs may write."""
        return tuple(name for name in self._sections if not name.startswith(".rodata"))

    def section(self, name: str) -> mmap.mmap:
        """Return the memory of a section of global data, such as ``.bss``."""
        return self._sections[name]

    def memory(self) -> list[tuple[int, int]]:
        """Return (address, bytes) of all stores and sections of global data."""
        pieces = [*(store.memory for store in self._stores.values()), *self._sections.values()]
        if self._pool is not None:
            pieces.append(self._pool.memory)
        return [(_address(piece), len(piece)) for piece in pieces]

    @property
    def timers(self) -> int:
        """The address of what workers know of timers; 0: no map has any."""
        return _address(self._timers) if self._timers is not None else 0

    def next_timer(self, worker: int) -> int:
        """The address of the time at which a worker's next timer is due, by CLOCK_MONOTONIC; 0: no map has timers."""
        return self._control.timers_next(self.timers, worker) if self._timers is not None else 0

    def symbols(self, worker: int) -> Mapping[str, int]:
        """Return the addresses that a program's symbols have for one worker."""
        symbols = {NUM_CPUS: self.num_cpus, "uxdp_pool": self._pool.address if self._pool is not None else 0}
        for name, store in self._stores.items():
            base = int(store.descriptor.store)
            symbols[STORE + name] = base
            symbols[CPU_STORE + name] = base + self._control.store_cpu_offset(ctypes.byref(store.descriptor), worker)
        for name, (section, offset) in self._variables.items():
            symbols[OWN + name] = _address(self._sections[section]) + offset
        return symbols

    def _new_timers(self, fields: Mapping[str, int]) -> mmap.mmap | None:
        """Make the memory for the timers in all maps that can have some: a place for each element."""
        with_timers = bytes(name in fields for name in self._stores)
        for name in fields.keys() & self._stores.keys():
            self._stores[name].timer = fields[name]
        maps, count = self.descriptors(), len(self._stores)
        size = self._control.timers_bytes(maps, count, with_timers, self.num_cpus)
        if size == 0:
            return None
        # What a data process knew, the one that is started in its place goes on with.
        sharing = mmap.MAP_SHARED if self._shared else mmap.MAP_PRIVATE
        memory = mmap.mmap(-1, size, flags=sharing | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        generation = int.from_bytes(os.urandom(8), "little")
        self._control.timers_init(_address(memory), maps, count, with_timers, self.num_cpus, generation)
        return memory

    def _allocate(
        self, definition: MapDefinition, number: int, given: mmap.mmap | None, kept: StoreMemory | None
    ) -> Store:
        descriptor = _descriptor(definition, number, self.num_cpus, self._extra.get(definition.name, 0))
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
        if definition.type in OUTER_TYPES:
            check_inner(definition, "")
            store: Store = OuterStore(definition, descriptor, self._control, memory, fd, self._pool)
        else:
            store = Store(definition, descriptor, self._control, memory, fd)
        if kept is not None:
            return store
        result = self._control.store_init(ctypes.byref(descriptor))
        if result < 0:
            raise MapOperationError(-result, definition.name)
        return store

    def _make_pool(self, kept: StoreMemory | None) -> None:
        if kept is not None:
            self._pool_memory = StoreMemory(kept.memory, os.dup(kept.fd) if kept.fd >= 0 else -1)
        else:
            self._pool_memory = StoreMemory(*reserve(lambda size: self._new_memory("inner", size)))
        self._pool = Pool(
            self._pool_memory.memory, self.num_cpus, lambda table: self._control.store_bytes(ctypes.byref(table))
        )

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
    """Yield (map, index, program) of ``.values = { [index] = &program }``."""
    return _initial_values(parsed, STT_FUNC)


def _initial_maps(parsed: BpfObject) -> Iterator[tuple[str, int, str]]:
    """Yield (outer map, index, map) of ``.values = { [index] = &map }``."""
    return _initial_values(parsed, STT_OBJECT)


def _initial_values(parsed: BpfObject, kind: str) -> Iterator[tuple[str, int, str]]:
    """Yield what a definition's ``values`` lead to: functions or maps, which are objects.

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
            if relocation.symbol.type == kind and place.value <= offset < place.value + place.size:
                members = {name: bits // 8 for name, _type, bits in parsed.btf.members(structures[place.name])}
                yield place.name, (offset - place.value - members["values"]) // _POINTER_BYTES, relocation.symbol.name


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
