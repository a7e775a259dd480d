"""What a redirect or a tail call leads to, by name: interfaces in devmaps, programs in prog_arrays.

In a store a program is its number in the object, counted from 1; the kernel takes a descriptor and gives an id back. To
people it is its name. An interface is its ifindex everywhere, or its name: in the service's network namespace, or on
DPDK among the devices that are served.
"""

import dataclasses
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..map_layout import Image, Layout, Notation, Number, Record, ValueShapeError
from ..map_text import number
from ..map_values import MapCodec

_DEVMAPS: Final = frozenset({"devmap", "devmap_hash"})
_CPUMAP: Final = "cpumap"
_PROGRAM_MEMBER: Final = "bpf_prog"  # of struct bpf_devmap_val and struct bpf_cpumap_val, a union of fd and id
_IFINDEX_MEMBER: Final = "ifindex"  # of struct bpf_devmap_val, include/uapi/linux/bpf.h
_NUMBER = struct.Struct("=I")


def with_target_names(
    codecs: Mapping[str, MapCodec],
    programs: Sequence[str],
    ifindexes: Mapping[str, int] | None = None,
    *,
    onward: Mapping[str, int] | None = None,
) -> dict[str, MapCodec]:
    """Return the codecs of an object's maps, which take and give names of interfaces and programs.

    :param programs: of the object, in the order of their numbers; those that cannot be called have no name: ""
    :param ifindexes: of all interfaces, by name; None: those of the network namespace
    :param onward: numbers of the programs that devmaps and cpumaps may name, by name
    """
    return {
        name: dataclasses.replace(codec, value=_with_program(codec, _named(codec, programs, ifindexes), onward or {}))
        for name, codec in codecs.items()
    }


def _with_program(codec: MapCodec, plain: Layout, onward: Mapping[str, int]) -> Layout:
    """Let values that may name a program take and give its name.

    :param plain: takes and gives a target alone
    """
    record = codec.value
    if codec.definition.type not in _DEVMAPS | {_CPUMAP} or not isinstance(record, Record):
        return plain
    if _PROGRAM_MEMBER not in record.members:
        return plain
    members = dict(record.members)
    place, layout = members[_PROGRAM_MEMBER]
    numbers = {**onward, "": 0}
    names = {number: name for name, number in numbers.items()}
    wanted = f"one of the programs {', '.join(onward) or 'none'}, or an empty text"
    program = _Target(Number(layout.size), numbers.get, names.get, wanted)
    members[_PROGRAM_MEMBER] = (place, program)
    if codec.definition.type in _DEVMAPS and _IFINDEX_MEMBER in members and isinstance(plain, _Target):
        at, index = members[_IFINDEX_MEMBER]
        members[_IFINDEX_MEMBER] = (at, plain.of(index))
    return _WithProgram(plain, Record(record.size, members), place)


def _named(codec: MapCodec, programs: Sequence[str], ifindexes: Mapping[str, int] | None) -> Layout:
    if codec.definition.type in _DEVMAPS and ifindexes is not None:
        names = {ifindex: name for name, ifindex in ifindexes.items()}
        wanted = f"one of the devices {', '.join(f'{name} ({ifindex})' for name, ifindex in ifindexes.items())}"
        return _Target(codec.value, ifindexes.get, names.get, wanted, always=False)
    if codec.definition.type in _DEVMAPS:
        return _Target(codec.value, _ifindex_of, _interface_of, "an interface that exists here", always=False)
    if codec.definition.type == "prog_array":
        numbers = {name: index for index, name in enumerate(programs, start=1) if name}
        names = {index: name for name, index in numbers.items()}
        wanted = f"one of the programs {', '.join(numbers) or 'none'}"
        return _Target(codec.value, numbers.get, names.get, wanted, always=True)
    if codec.definition.type == "xskmap":
        wanted = "nothing: only the process that owns a socket can put it there, by its descriptor"
        return _Target(codec.value, lambda _name: None, lambda _number: None, wanted, always=False)
    return codec.value


class _WithProgram(Layout):
    """A target, or a target and a program that runs on what goes there."""

    def __init__(self, plain: Layout, whole: Layout, place: int) -> None:
        self.size = whole.size
        self.leaves = whole.leaves
        self._plain = plain
        self._whole = whole
        self._place = place

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return both if there is a program."""
        has_program = _NUMBER.unpack_from(data, offset + self._place)[0] != 0
        return (self._whole if has_program else self._plain).decode(data, offset, notation)

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take an object with both, or a target alone."""
        (self._whole if isinstance(value, Mapping) else self._plain).encode(image, offset, value, notation)


class _Target(Layout):
    """A number that stands for something with a name; ``always``: numbers mean nothing to people."""

    def __init__(
        self,
        inner: Layout,
        number_of: Callable[[str], int | None],
        name_of: Callable[[int], str | None],
        wanted: str,
        *,
        always: bool = True,
    ) -> None:
        self.size = inner.size
        self.leaves = inner.leaves
        self._inner = inner
        self._number_of = number_of
        self._name_of = name_of
        self._wanted = wanted
        self._always = always

    def of(self, inner: Layout) -> "_Target":
        """Return the same for a number of another layout."""
        return _Target(inner, self._number_of, self._name_of, self._wanted, always=self._always)

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return the name in ADDRESSES, or if only that means anything; else the number."""
        name = self._name_of(_NUMBER.unpack_from(data, offset)[0])
        if name is not None and (self._always or notation is Notation.ADDRESSES):
            return name
        return self._inner.decode(data, offset, notation)

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take a name, or the number of what exists."""
        known = None
        if isinstance(value, str) and number(value) is None:
            known = self._number_of(value)
            if known is None:
                raise ValueShapeError(value, self._wanted)
        given = value if known is None else known if self.size == _NUMBER.size else {_IFINDEX_MEMBER: known}
        self._inner.encode(image, offset, given, notation)
        (written,) = _NUMBER.unpack_from(image.data, offset)
        if self._name_of(written) is None:
            raise ValueShapeError(value, self._wanted)


def _ifindex_of(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _interface_of(ifindex: int) -> str | None:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None
