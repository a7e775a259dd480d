"""One map of the kernel, with lookups and updates that know its sizes.

Memory: keys and values are bytes in the machine's byte order, of exactly the map's sizes; anything else is refused
before the kernel is asked, because it would read and write beyond them. An element of a per-CPU map has one value per
possible CPU, each in a slot of ``value_size`` rounded up to 8 bytes; where this says *value*, that is all slots in one.

A descriptor may belong to somebody else (libbpf, a verified object); then ``close()`` leaves it alone.

Caveat: reading all elements while somebody deletes some may return elements twice or leave some out, as the kernel has
no snapshots of maps.

References: Documentation/bpf/maps.rst; kernel/bpf/syscall.c, bpf_map_value_size; kernel/bpf/arraymap.c, array_map_mmap
"""

import errno
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, Self

from uxdp_bundle.map_definitions import MAP_TYPES

from ..errors import ENOTSUPP, BpfError, ParameterError, errno_text
from . import syscall, user_ring_buffer
from .cpus import num_possible_cpus

BPF_ANY: Final = 0
BPF_NOEXIST: Final = 1
BPF_EXIST: Final = 2
BPF_F_LOCK: Final = 4

_PER_CPU: Final = frozenset({"percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage"})
_WITHOUT_KEYS: Final = frozenset({"queue", "stack", "bloom_filter"})
_SLOT_ALIGNMENT: Final = 8
_BPF_F_MMAPABLE: Final = 1 << 10  # include/uapi/linux/bpf.h
# Memory for the elements of one system call. More gains nothing measurable; a bucket of a hash map has to fit.
_BATCH_BYTES: Final = 256 << 10
_NO_BATCHES: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP})


class Map:
    """A map in the kernel. Close it, or use it as a context manager.

    ``info`` is what the kernel said of it, ``type`` its type as bpftool names it; ``value_bytes`` is the size of what a
    lookup returns, ``slot_bytes`` the distance of per-CPU slots and of an array's elements.
    """

    def __init__(self, fd: int, *, name: str = "", owned: bool = False) -> None:
        """Look at the map behind a descriptor.

        :param name: what messages call it; the kernel's name, which may be cut off, if none is given
        :param owned: whether ``close()`` closes the descriptor
        :raises BpfError: not the descriptor of a map
        """
        self.fd = fd
        self._owned = owned
        self.info = syscall.map_info(fd)
        self.name = name or self.info.name or f"of descriptor {fd}"
        number = self.info.type
        self.type = MAP_TYPES[number] if number < len(MAP_TYPES) else f"type#{number}"
        self.slot_bytes = self.info.value_size + -self.info.value_size % _SLOT_ALIGNMENT
        self.num_slots = num_possible_cpus() if self.type in _PER_CPU else 1
        self.value_bytes = self.slot_bytes * self.num_slots if self.type in _PER_CPU else self.info.value_size

    @classmethod
    def create(
        cls,
        kind: str,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        name: str = "",
        inner_fd: int = 0,
    ) -> Self:
        """Create a map of a type as bpftool names it, such as ``lru_hash``.

        :param inner_fd: of a map of maps: a map that its inner maps are like
        """
        number = MAP_TYPES.index(kind)
        fd = syscall.create_map(
            *(number, key_size, value_size, max_entries), flags=flags, name=name, inner_map_fd=inner_fd
        )
        return cls(fd, name=name, owned=True)

    @property
    def is_mappable(self) -> bool:
        """Whether this is an array that can be mapped into memory."""
        return self.type == "array" and bool(self.info.flags & _BPF_F_MMAPABLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor if it is this object's; what is mapped stays mapped."""
        if self._owned and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def lookup(self, key: bytes) -> bytes:
        """Return the value of a key.

        :raises BpfError: ENOENT if there is none
        """
        self._check("key", key, self.info.key_size)
        with self._named():
            return syscall.lookup_element(self.fd, key, self.value_bytes)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none."""
        try:
            return self.lookup(key)
        except BpfError as missing:
            if missing.errno == errno.ENOENT:
                return None
            raise

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set the value of a key.

        :raises BpfError: EEXIST or ENOENT as the flags say, E2BIG if the map is full
        """
        if self.type == "user_ringbuf":
            user_ring_buffer.produce(self.fd, self.info.max_entries, [value], self.name)
            return
        self._check("key", key, self.info.key_size)
        self._check("value", value, self.value_bytes)
        with self._named():
            if self.type in _WITHOUT_KEYS:  # the kernel refuses a pointer to none
                syscall.push_element(self.fd, value, flags)
            else:
                syscall.update_element(self.fd, key, value, flags)

    def delete(self, key: bytes) -> None:
        """Delete an element.

        :raises BpfError: ENOENT if there is none, EINVAL for arrays
        """
        self._check("key", key, self.info.key_size)
        with self._named():
            syscall.delete_element(self.fd, key)

    def pop(self) -> bytes | None:
        """Take the next value out of a queue or stack; None if it is empty."""
        try:
            with self._named():
                return syscall.pop_element(self.fd, self.value_bytes)
        except BpfError as missing:
            if missing.errno == errno.ENOENT:
                return None
            raise

    def has_value(self, value: bytes) -> bool:
        """Whether a Bloom filter may have seen a value."""
        self._check("value", value, self.value_bytes)
        with self._named():
            return syscall.has_value(self.fd, value)

    def values(self) -> list[bytes]:
        """Return the values of a queue or stack in the order in which they were pushed.

        They are taken out and pushed again, so nobody else may use the map meanwhile.
        """
        values: list[bytes] = []
        while (value := self.pop()) is not None and len(values) < self.info.max_entries:
            values.append(value)
        if self.type == "stack":
            values.reverse()
        for value in values:
            self.update(b"", value)
        return values

    def keys(self) -> Iterator[bytes]:
        """Yield the keys, one system call each; see the module's caveat."""
        key: bytes | None = None
        while True:
            with self._named():
                key = syscall.next_key(self.fd, key, self.info.key_size)
            if key is None:
                return
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all elements, many per system call where the kernel can; see the module's caveat.

        :raises BpfError: EOPNOTSUPP for maps that the kernel lets nobody read, such as those of sockets
        """
        cursor: bytes | None = None
        while True:
            items, cursor = self.page(cursor, self._elements_per_call())
            yield from items
            if cursor is None:
                return

    def page(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Return about ``count`` elements, and where the next ones begin; None behind the last.

        :param cursor: None for the first ones, or what the call before returned
        :raises BpfError: EOPNOTSUPP for maps that the kernel lets nobody read, such as those of sockets
        """
        try:
            with self._named():
                batch = syscall.lookup_batch(self.fd, cursor, count, self.info.key_size, self.value_bytes)
        except BpfError as refused:
            if refused.errno == errno.ENOSPC and count < self.info.max_entries:
                return self.page(cursor, 2 * count)
            if refused.errno not in _NO_BATCHES:
                raise
            return self._page_one_by_one(cursor, count)
        items = [
            (
                batch.keys[index * self.info.key_size : (index + 1) * self.info.key_size],
                batch.values[index * self.value_bytes : (index + 1) * self.value_bytes],
            )
            for index in range(batch.count)
        ]
        return items, batch.cursor

    def update_many(self, items: Iterable[tuple[bytes, bytes]], flags: int = BPF_ANY) -> None:
        """Set many elements, many per system call where the kernel can.

        :raises BpfError: as ``update``; those before the one that failed, and only those, stay set
        """
        remaining = iter(items)
        while chunk := list(islice(remaining, self._elements_per_call())):
            for key, value in chunk:
                self._check("key", key, self.info.key_size)
                self._check("value", value, self.value_bytes)
            keys, values = b"".join(key for key, _ in chunk), b"".join(value for _, value in chunk)
            try:
                with self._named():
                    syscall.update_batch(self.fd, keys, values, len(chunk), flags)
            except BpfError as refused:
                if refused.errno not in _NO_BATCHES:
                    raise
                for key, value in chunk:
                    self.update(key, value, flags)

    def split_slots(self, value: bytes) -> list[bytes]:
        """Cut a per-CPU value into one of ``value_size`` bytes per CPU; a value of another map is the only one."""
        self._check("value", value, self.value_bytes)
        starts = (index * self.slot_bytes for index in range(self.num_slots))
        return [value[start : start + self.info.value_size] for start in starts]

    def join_slots(self, values: Sequence[bytes]) -> bytes:
        """Put one value of ``value_size`` bytes per CPU together to a per-CPU value."""
        if len(values) != self.num_slots:
            raise ParameterError(f"{len(values)} values, expected {self.num_slots}", context=f"map {self.name}")
        for value in values:
            self._check("value", value, self.info.value_size)
        if self.num_slots == 1 and self.value_bytes == self.info.value_size:
            return values[0]
        return b"".join(value.ljust(self.slot_bytes, b"\0") for value in values)

    def freeze(self) -> None:
        """Make the map read-only for system calls, for ever."""
        with self._named():
            syscall.freeze_map(self.fd)

    def mmap(self, *, writable: bool = True) -> mmap.mmap:
        """Map an array that was created with BPF_F_MMAPABLE into this process's memory.

        Element i begins at i * ``slot_bytes``. The mapping outlives this object; who asked for it closes it.

        :raises BpfError: ENOTSUPP for another kind of map, EINVAL for an array without the flag, EPERM for a frozen one
            that is to be writable
        """
        size = self.slot_bytes * self.info.max_entries
        size += -size % mmap.PAGESIZE
        protection = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        try:
            return mmap.mmap(self.fd, size, flags=mmap.MAP_SHARED, prot=protection)
        except OSError as cause:
            number = cause.errno or errno.EINVAL
            raise BpfError(number, f"mmap: {errno_text(number)}", context=f"map {self.name}") from cause

    def _elements_per_call(self) -> int:
        return max(1, min(self.info.max_entries, _BATCH_BYTES // (self.info.key_size + self.value_bytes)))

    def _page_one_by_one(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        items: list[tuple[bytes, bytes]] = []
        while len(items) < count:
            with self._named():
                cursor = syscall.next_key(self.fd, cursor, self.info.key_size)
            if cursor is None:
                break
            value = self.get(cursor)
            if value is not None:  # deleted meanwhile, or an empty place of a prog_array
                items.append((cursor, value))
        return items, cursor

    def _check(self, what: str, data: bytes, size: int) -> None:
        if len(data) != size:
            raise ParameterError(f"{what} of {len(data)} bytes, expected {size}", context=f"map {self.name}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BpfError as error:
            error.context = f"map {self.name}"
            raise
