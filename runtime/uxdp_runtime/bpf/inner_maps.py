"""Maps of maps in the kernel, with values as stores have them (see inner_stores): numbers of declared maps, or sizes.

bpf(2) takes the descriptor of an inner map and gives its id back. An inner map that is made here lives as long as it is
in an outer one.

Reference: kernel/bpf/map_in_map.c
"""

import errno
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from uxdp_bundle.manifest import MapDefinition

from ..errors import BpfError
from . import syscall
from .maps import BPF_ANY, Map

MADE = 1 << 31  # a value: a map that was made, with so many elements
_NUMBER = struct.Struct("=I")
_FD = struct.Struct("=i")


class OuterMap:
    """A map of maps of the kernel."""

    def __init__(self, table: Map, template: MapDefinition, declared: Sequence[Map]) -> None:
        """Wrap it.

        :param template: what its inner maps are like
        :param declared: the object's declared maps in the order of their numbers; borrowed
        """
        self._table = table
        self._template = template
        self._declared = declared

    @property
    def type(self) -> str:
        """The outer map's type."""
        return self._table.type

    def lookup(self, key: bytes) -> bytes | None:
        """Return the number of the declared map that is there, or how many elements one has that was made."""
        value = self._table.get(key)
        return None if value is None else self._told(value)

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Put a declared map there, or a new one.

        :raises BpfError: as the kernel refuses it
        """
        (number,) = _NUMBER.unpack(value)
        if not number & MADE:
            if not 1 <= number <= len(self._declared):
                raise BpfError(errno.EINVAL, "there is no map of this number", context=f"map {self._table.name}")
            self._table.update(key, _FD.pack(self._declared[number - 1].fd), flags)
            return
        template = self._template
        with Map.create(
            template.type,
            key_size=template.key_size,
            value_size=template.value_size,
            max_entries=number & ~MADE or template.max_entries,
            flags=template.flags,
        ) as made:
            self._table.update(key, _FD.pack(made.fd), flags)

    def delete(self, key: bytes) -> None:
        """Take a map out.

        :raises BpfError: ENOENT if there is none
        """
        self._table.delete(key)

    def page(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Return about ``count`` elements, and where the next ones begin; None behind the last."""
        items, following = self._table.page(cursor, count)
        return [(key, self._told(value)) for key, value in items if any(value)], following

    def inner(self, key: bytes) -> Map:
        """Return the map that a key leads to, which the caller closes.

        :raises BpfError: ENOENT if there is none
        """
        fd = syscall.map_fd_by_id(_NUMBER.unpack(self._table.lookup(key))[0])
        return Map(fd, name=inner_name(self._table.name, key), owned=True)

    def _told(self, value: bytes) -> bytes:
        (number,) = _NUMBER.unpack(value)
        for index, declared in enumerate(self._declared, start=1):
            if declared.info.id == number:
                return _NUMBER.pack(index)
        fd = syscall.map_fd_by_id(number)
        try:
            return _NUMBER.pack(MADE | syscall.map_info(fd).max_entries)
        finally:
            os.close(fd)


def inner_name(outer: str, key: bytes) -> str:
    """Return what a map in a map of maps is called here: OUTER[bytes of the key in hex]."""
    return f"{outer}[{key.hex()}]"


def split_inner_name(name: str) -> tuple[str, bytes] | None:
    """Return the outer map and the key that a name is made of; None if it is a declared map's."""
    outer, bracket, key = name.partition("[")
    return (outer, bytes.fromhex(key.removesuffix("]"))) if bracket else None


class KernelMaps:
    """The maps of an object in the kernel by the names that stores have: also maps in maps of maps, ``OUTER[KEY]``."""

    def __init__(self, definitions: Sequence[MapDefinition], maps: Mapping[str, Map]) -> None:
        """Find the maps of maps among them.

        :param definitions: in the order of the maps' numbers
        :param maps: by name; borrowed
        """
        self._maps = maps
        declared = [maps[definition.name] for definition in definitions if not definition.name.startswith(".")]
        self.outers = {
            definition.name: OuterMap(maps[definition.name], definition.inner, declared)
            for definition in definitions
            if definition.inner is not None
        }

    @contextmanager
    def open(self, name: str) -> Iterator[Map | OuterMap]:
        """Give a map.

        :raises BpfError: ENOENT if the map of maps has no such key
        """
        inner = split_inner_name(name)
        if inner is None:
            yield self.outers.get(name, self._maps[name])
        else:
            with self.outers[inner[0]].inner(inner[1]) as found:
                yield found

    def update(self, name: str, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Set elements of a map."""
        with self.open(name) as table:
            for key, value in items:
                table.update(key, value)

    def items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield all elements of a map that is no map of maps."""
        with self.open(name) as table:
            if isinstance(table, Map):
                yield from table.items()
