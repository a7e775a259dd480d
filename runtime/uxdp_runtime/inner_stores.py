"""The pool: memory of the maps that control planes put into maps of maps while programs run. See native/maps/nested.h.

It is reserved at once, large and empty, and mapped by every process that works on it; a map that is made takes a
descriptor and a range of it. What is known of it stands in the descriptors, so that another process can go on with it.

To control planes an outer map's value is a number of 32 bits: that of a declared map, counted from 1; or MADE and a
number of elements. Writing the latter makes a new, empty map of that many elements (0: as many as the template has);
so does every further writing. Reading it tells how many elements the map has.
"""

import ctypes
import errno
import mmap
import os
import struct
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES

from . import abi
from .bpf.inner_maps import MADE, inner_name
from .compile.inner_maps import has_constant_size
from .store import MapOperationError, Store

POOL: Final = ".inner maps"  # the name of its memory among that of the stores
_POOLED: Final = 1 << 31  # INNER_POOLED
_DESCRIPTORS: Final = 65_536  # POOL_DESCRIPTORS
_PAGE: Final = 4096
_WORKER_BYTES: Final = 64
# Address space, not memory. A machine that has less gets less.
_SIZES: Final = tuple(1 << bits for bits in (37, 35, 33, 31))
_REST_SECONDS: Final = 1.0
_NUMBER: Final = struct.Struct("=I")
_BURST: Final = struct.Struct("=Q")


class PoolMap(ctypes.Structure):
    """``struct pool_map``."""

    _fields_ = (("map", abi.Map), ("cpu_first", ctypes.c_uint64), ("cpu_stride", ctypes.c_uint64))


class _Retired(NamedTuple):
    number: int
    bursts: tuple[int, ...]
    since: float


class Pool:
    """The memory of inner maps that are made at run time. Its methods belong to one thread of one process."""

    def __init__(
        self,
        memory: mmap.mmap,
        num_cpus: int,
        store_bytes: Callable[[abi.Map], int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take memory that ``reserve`` made, or that another process has used for the same number of workers.

        :param memory: borrowed
        :param store_bytes: how large the store of a definition is; 0: there is none
        """
        self.memory = memory
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._num_cpus = num_cpus
        self._store_bytes = store_bytes
        self._clock = clock
        first = _PAGE + -(-num_cpus * _WORKER_BYTES // _PAGE) * _PAGE
        self._maps = (PoolMap * _DESCRIPTORS).from_buffer(memory, first)
        self._heap = first + ctypes.sizeof(self._maps)
        self._used: dict[int, tuple[int, int]] = {}  # number -> where its store begins and ends
        self._retired: list[_Retired] = []
        for number in range(_DESCRIPTORS):
            if not self._maps[number].map.kind:
                break  # they are given out in ascending order, and an entry that is free again says so
            if self._maps[number].map.inner:
                self._used[number] = self._range(number)

    def keep_only(self, entries: Collection[int]) -> None:
        """Retire all maps that no outer map's entry leads to."""
        for number in self._used.keys() - {entry & ~_POOLED for entry in entries if entry & _POOLED}:
            self.retire(number | _POOLED)

    def make(self, template: MapDefinition, max_entries: int) -> int:
        """Reserve the store of a new map, and return the entry that leads to it.

        The store is zeroed memory that its maker has yet to initialise.

        :param max_entries: 0: the template's
        :raises OSError: EINVAL if there is no such map, ENOSPC if the pool is full
        """
        self._reclaim()
        definition = abi.Map(
            kind=MAP_TYPES.index(template.type),
            key_size=template.key_size,
            value_size=template.value_size,
            max_entries=max_entries or template.max_entries,
            flags=template.flags,
            num_cpus=self._num_cpus,
        )
        size = self._store_bytes(definition)
        if size == 0 or (has_constant_size(template) and definition.max_entries != template.max_entries):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        number = next((number for number in range(_DESCRIPTORS) if number not in self._used), None)
        start = self._room(-(-size // _PAGE) * _PAGE)
        if number is None or start is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        definition.inner = 1
        definition.id = number
        definition.store = start
        self._maps[number].map = definition
        self._used[number] = self._range(number)
        return number | _POOLED

    def place_cpus(self, entry: int, offset: Callable[[abi.Map, int], int]) -> None:
        """Note where each CPU's part of a map's store is."""
        pooled = self._maps[entry & ~_POOLED]
        pooled.cpu_first = offset(pooled.map, 0)
        pooled.cpu_stride = offset(pooled.map, 1) - pooled.cpu_first

    def definition(self, entry: int) -> abi.Map:
        """Return the definition of a map with its addresses in this process."""
        found = abi.Map.from_buffer_copy(self._maps[entry & ~_POOLED].map)
        found.inner = 0
        found.store += self.address
        found.cpu_store = found.store
        return found

    def retire(self, entry: int) -> None:
        """Give up a map that no outer map leads to any more.

        Its memory is used again when no program can hold a pointer to it: when each worker that was in a burst has
        begun another or ended, and some time has passed.
        """
        self._retired.append(_Retired(entry & ~_POOLED, self._bursts(), self._clock()))
        self._reclaim()

    def _reclaim(self) -> None:
        now, bursts = self._clock(), self._bursts()
        waiting = []
        for one in self._retired:
            rested = all(not was & 1 or was != burst for was, burst in zip(one.bursts, bursts, strict=True))
            if not rested or now < one.since + _REST_SECONDS:
                waiting.append(one)
                continue
            start, end = self._used.pop(one.number)
            self._empty(start, end - start)
            self._maps[one.number].map.inner = 0
        self._retired = waiting

    def _empty(self, start: int, size: int) -> None:
        """Give pages back to the system; they are zero again."""
        try:
            self.memory.madvise(mmap.MADV_REMOVE, start, size)  # of memory that is shared
        except OSError:
            self.memory.madvise(mmap.MADV_DONTNEED, start, size)

    def _bursts(self) -> tuple[int, ...]:
        return tuple(
            _BURST.unpack_from(self.memory, _PAGE + worker * _WORKER_BYTES)[0] for worker in range(self._num_cpus)
        )

    def _range(self, number: int) -> tuple[int, int]:
        found = self._maps[number].map
        size = self._store_bytes(found)
        return found.store, found.store + -(-size // _PAGE) * _PAGE

    def _room(self, size: int) -> int | None:
        """Return where so many bytes are free."""
        at = self._heap
        for start, end in sorted(self._used.values()):
            if start - at >= size:
                return at
            at = end
        return at if len(self.memory) - at >= size else None


@dataclass(slots=True)
class OuterStore(Store):
    """A map of maps. Values are as inner_stores tells; ``inner`` gives the maps themselves."""

    _pool: Pool | None = None
    declared: Sequence[Store] = ()

    def lookup(self, key: bytes) -> bytes | None:
        """Return what is there: the number of a declared map, or how many elements one has that was made."""
        entry = Store.lookup(self, key)
        return None if entry is None else self._told(entry)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Put a declared map there, or a new one.

        :raises MapOperationError: as the kernel's map would refuse it
        """
        old = Store.lookup(self, key)
        max_entries = made_of(value)
        entry = value if max_entries is None else self._make(max_entries)
        try:
            if max_entries is None:
                self._check_declared(value)
            Store.update(self, key, entry, flags)
        except MapOperationError:
            if max_entries is not None:
                self._retire(entry)
            raise
        if old is not None:
            self._retire(old)

    def delete(self, key: bytes) -> None:
        """Take a map out.

        :raises MapOperationError: ENOENT if there is none
        """
        old = Store.lookup(self, key)
        Store.delete(self, key)
        if old is not None:
            self._retire(old)

    def page(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Return up to ``count`` (key, value) pairs, as any store does."""
        items, following = Store.page(self, cursor, count)
        return [(key, self._told(entry)) for key, entry in items], following

    def entries(self) -> Iterator[tuple[bytes, int]]:
        """Yield keys and what native code has there."""
        for key in self.keys():
            entry = Store.lookup(self, key)
            if entry is not None:
                yield key, _NUMBER.unpack(entry)[0]

    def inner(self, key: bytes) -> Store:
        """Return the map that a key leads to.

        :raises MapOperationError: ENOENT if there is none
        """
        entry = Store.lookup(self, key)
        if entry is None:
            raise MapOperationError(errno.ENOENT, self.definition.name)
        (number,) = _NUMBER.unpack(entry)
        if not number & _POOLED:
            found: Store = self.declared[number - 1]
            return found
        assert self._pool is not None  # noqa: S101  # an object with maps of maps has one
        descriptor = self._pool.definition(number)
        template = self.definition.inner
        assert template is not None  # noqa: S101  # check_inner saw it
        name = inner_name(self.definition.name, key)
        definition = replace(template, name=name, max_entries=descriptor.max_entries)
        return Store(definition, descriptor, self._control, self._pool.memory)

    def _told(self, entry: bytes) -> bytes:
        (number,) = _NUMBER.unpack(entry)
        if not number & _POOLED or self._pool is None:
            return entry
        return as_made(self._pool.definition(number).max_entries)

    def _check_declared(self, value: bytes) -> None:
        """Refuse maps that are not like the template. Source: kernel/bpf/map_in_map.c, bpf_map_meta_equal"""
        (number,) = _NUMBER.unpack(value)
        template = self.definition.inner
        if template is None or not 1 <= number <= len(self.declared):
            raise MapOperationError(errno.EINVAL, self.definition.name)
        found = self.declared[number - 1].definition
        wanted = replace(template, name=found.name, pinning=found.pinning)
        if not has_constant_size(template):
            wanted = replace(wanted, max_entries=found.max_entries)
        if found != wanted:
            raise MapOperationError(errno.EINVAL, self.definition.name)

    def _make(self, max_entries: int) -> bytes:
        assert self._pool is not None  # noqa: S101  # an object with maps of maps has one
        assert self.definition.inner is not None  # noqa: S101  # check_inner saw it
        try:
            entry = self._pool.make(self.definition.inner, max_entries)
        except OSError as refused:
            raise MapOperationError(refused.errno or errno.EINVAL, self.definition.name) from refused
        self._pool.place_cpus(entry, lambda table, cpu: self._control.store_cpu_offset(ctypes.byref(table), cpu))
        self._check(self._control.store_init(ctypes.byref(self._pool.definition(entry))))
        return _NUMBER.pack(entry)

    def _retire(self, entry: bytes) -> None:
        (number,) = _NUMBER.unpack(entry)
        if number & _POOLED and self._pool is not None:
            self._pool.retire(number)


def reserve(make: Callable[[int], tuple[mmap.mmap, int]]) -> tuple[mmap.mmap, int]:
    """Return memory for a pool, and its descriptor.

    :param make: makes memory of a size whose pages exist when they are touched
    """
    for size in _SIZES[:-1]:
        with suppress(OSError):
            return make(size)
    return make(_SIZES[-1])


def made_of(value: bytes) -> int | None:
    """Return the number of elements of a map that a value tells to make; None if it names a declared map."""
    (number,) = _NUMBER.unpack(value)
    return number & ~MADE if number & MADE else None


def as_made(max_entries: int) -> bytes:
    """Return the value of a map that is, or shall be, made with so many elements."""
    return _NUMBER.pack(MADE | max_entries)
