"""The maps of a running service, for its control socket: keys and values by their BTF types.

Each element has one side or two. The kernel's arrays and global data are the native program's memory, so the kernel's
map is all there is of them. Other maps are stores. Where the kernel's copy of the program stands in while native code
is away (``--on-failure kernel``), what is written goes to the kernel's map as well; reading reads the store. In the
kernel mode there are only the kernel's maps.

A request handles a bounded number of elements, because the control process has one thread: dumps and bulk loads come in
pieces.
"""

import dataclasses
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError

from ..bpf import syscall
from ..bpf.cpus import num_possible_cpus
from ..bpf.inner_maps import KernelMaps, OuterMap, inner_name, split_inner_name
from ..bpf.maps import BPF_ANY, BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, Map
from ..errors import ParameterError
from ..inner_stores import OuterStore, made_of
from ..map_file import Contents, codec_of, elements_of, find_codec, load_document, readable_name
from ..map_layout import Notation
from ..map_values import MapCodec
from ..stores import Store
from ..verify import VerifiedObject
from .control_socket import Handler
from .target_names import with_target_names

MAX_ELEMENTS: Final = 1024  # of one request
_MAX_BYTES: Final = 1 << 18
_FLAGS: Final = {"any": BPF_ANY, "new": BPF_NOEXIST, "existing": BPF_EXIST}
_NOTATIONS: Final = {"network": Notation.NETWORK, "addresses": Notation.ADDRESSES, "bpftool": Notation.BPFTOOL}
_ARRAYS: Final = frozenset({"array", "percpu_array"})
_WITHOUT_ELEMENTS: Final = frozenset({"ringbuf", "perf_event_array", "xskmap", "bloom_filter", "user_ringbuf"})
_STREAMS: Final = frozenset({"ringbuf", "perf_event_array"})
_BLOOM_FILTER: Final = "bloom_filter"
_PROGRAM = struct.Struct("=I")
_TARGET = struct.Struct("=Ii")  # struct bpf_devmap_val, struct bpf_cpumap_val
_WITH_PROGRAMS: Final = frozenset({"devmap", "devmap_hash", "cpumap"})


class MissingElementError(UxdpError):
    """A map has no such element."""


class _Side(Protocol):
    """What a store and a map of the kernel have in common."""

    def lookup(self, key: bytes) -> bytes | None: ...

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def page(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]: ...


class _Sequence(_Side, Protocol):
    """A side of a map without keys."""

    def pop(self) -> bytes | None: ...

    def has_value(self, value: bytes) -> bool: ...


class _KernelSide:
    """A map of the kernel, in which programs have numbers as in a store."""

    def __init__(self, table: Map, program_fds: Sequence[int]) -> None:
        """Wrap it.

        :param program_fds: by number in the object; -1: not loaded
        """
        self._table = table
        self._is_prog_array = table.type == "prog_array"
        self._fds = program_fds
        # The kernel takes descriptors and gives back ids.
        self._has_programs = table.type in _WITH_PROGRAMS and table.value_bytes == _TARGET.size
        translates = self._is_prog_array or self._has_programs
        self._ids = [syscall.program_info(fd).id if fd >= 0 else 0 for fd in program_fds] if translates else []

    def lookup(self, key: bytes) -> bytes | None:
        value = self._table.get(key)
        return None if value is None else self._from_kernel(value)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        if self._is_prog_array:
            value = struct.pack("=i", self._fds[_PROGRAM.unpack(value)[0] - 1])
        if self._has_programs:
            target, number = _TARGET.unpack(value)
            value = _TARGET.pack(target, self._fds[number - 1] if 0 < number <= len(self._fds) else 0)
        # Where workers are fewer than CPUs, their values go to the first ones.
        size = self._table.value_bytes
        self._table.update(key, value[:size].ljust(size, b"\0"), flags)

    def delete(self, key: bytes) -> None:
        self._table.delete(key)

    def pop(self) -> bytes | None:
        return self._table.pop()

    def has_value(self, value: bytes) -> bool:
        return self._table.has_value(value)

    def page(self, cursor: bytes | None, count: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        items, following = self._table.page(cursor, count)
        return [(key, self._from_kernel(value)) for key, value in items], following

    def _from_kernel(self, value: bytes) -> bytes:
        if self._has_programs:
            target, found = _TARGET.unpack(value)
            return _TARGET.pack(target, self._ids.index(found) + 1 if found in self._ids else 0)
        if not self._is_prog_array:
            return value
        (found,) = _PROGRAM.unpack(value)
        return _PROGRAM.pack(self._ids.index(found) + 1) if found in self._ids else value


@dataclass(frozen=True, slots=True)
class Elements:
    """One map: its codec, where its elements are, how many values a per-CPU element has, and a second place to write
    to."""

    codec: MapCodec
    side: _Side
    cpus: int
    mirror: _Side | None

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set an element.

        :raises UxdpError: as bpf(2) would refuse it
        """
        self.side.update(key, value, flags)
        if self.mirror is not None:
            self.mirror.update(key, value)

    def delete(self, key: bytes) -> None:
        """Delete an element.

        :raises UxdpError: there is none, or such maps cannot
        """
        self.side.delete(key)
        if self.mirror is not None and self.mirror.lookup(key) is not None:
            self.mirror.delete(key)


def _has_elements(elements: Elements) -> bool:
    """Whether they can be read without being changed: those of a queue in the kernel cannot."""
    if elements.codec.has_no_keys and isinstance(elements.side, _KernelSide):
        return False
    return elements.codec.definition.type not in _WITHOUT_ELEMENTS


def _check_keys(codec: MapCodec, *, has_keys: bool) -> None:
    if codec.has_no_keys == has_keys:
        what, remedy = ("push", "uxdp map set") if not has_keys else ("set", "uxdp map push")
        raise UnsupportedFeatureError(
            f"{what} for a map of type {codec.definition.type}",
            "it has no keys" if has_keys else "its elements have keys",
            context=f"map {codec.name}",
            remedy=remedy,
        )


def _sequence(side: _Side) -> _Sequence:
    assert isinstance(side, Store | _KernelSide)  # noqa: S101  # no map of maps
    return side


def _definition(name: str, elements: Elements) -> dict[str, Any]:
    definition = elements.codec.definition
    return {
        "name": name,
        "type": definition.type,
        "key_size": definition.key_size,
        "value_size": definition.value_size,
        "max_entries": definition.max_entries,
        "flags": definition.flags,
        "typed": elements.codec.is_typed,
        "global_data": elements.codec.is_global_data,
        "has_elements": _has_elements(elements),
        "in_kernel": isinstance(elements.side, _KernelSide | OuterMap),
        "cpus": elements.cpus if elements.codec.is_per_cpu else 1,
    }


def _inner_side(outer: _Side | None, key: bytes, stack: ExitStack) -> _Side | None:
    """Return a map in a map of maps, as long as the stack is open."""
    if isinstance(outer, OuterStore):
        return outer.inner(key)
    if isinstance(outer, OuterMap):
        return _KernelSide(stack.enter_context(outer.inner(key)), ())
    return None


class MapAccess:
    """The maps of one version of a program."""

    def __init__(
        self,
        obj: bytes,
        verified: VerifiedObject,
        stores: Mapping[str, Store],
        *,
        mirror: bool,
        ifindexes: Mapping[str, int] | None = None,
    ) -> None:
        """Find out where each map's elements are.

        :param obj: the object, for the types
        :param stores: by map; maps without one, and arrays, are the kernel's
        :param mirror: whether what goes to a store goes to the kernel's map as well
        :param ifindexes: of all interfaces, by name; None: those of the network namespace
        """
        names = [fact.name for fact in verified.bound.facts.programs]
        self._programs = names
        fds = [verified.programs[name].fd if name in verified.programs else -1 for name in names]
        codecs = MapCodec.for_object(obj)
        callable_names = [name if fd >= 0 else "" for name, fd in zip(names, fds, strict=True)]
        onward = {
            fact.name: number
            for number, fact in enumerate(verified.bound.facts.programs, start=1)
            if {"devmap", "cpumap"} & set(fact.flags)
        }
        self._codecs = with_target_names(codecs, callable_names, ifindexes, onward=onward)
        self._maps: dict[str, Elements] = {}
        outers = KernelMaps(verified.bound.facts.maps, verified.maps).outers
        for name, codec in self._codecs.items():
            table = verified.maps.get(name)
            store = None if table is not None and table.is_mappable else stores.get(name)
            kernel: _Side | None = None if table is None else outers.get(name) or _KernelSide(table, fds)
            if store is not None:
                self._maps[name] = Elements(codec, store, store.cpus, kernel if mirror else None)
            elif kernel is not None:
                self._maps[name] = Elements(codec, kernel, num_possible_cpus(), None)

    def definitions(self) -> list[dict[str, Any]]:
        """Return the definitions of all maps; of the maps in a map of maps, of the first MAX_ELEMENTS."""
        found = []
        for name, elements in self._maps.items():
            found.append(_definition(name, elements))
            if elements.codec.inner is not None:
                items, _following = elements.side.page(None, MAX_ELEMENTS)
                for key in (key for key, value in items if made_of(value) is not None):
                    inner = inner_name(name, key)
                    with self._opened(codec_of(inner, self._codecs)) as made:
                        found.append(_definition(readable_name(inner, self._codecs), made))
        return found

    def fill(self, contents: Contents) -> None:
        """Set elements that were read from a file or from assignments."""
        for name, items in contents.items():
            with self._opened(codec_of(name, self._codecs)) as elements:
                for key, value in items:
                    elements.update(key, value)

    def onward_in(self, name: str) -> set[str]:
        """Return the programs that the values of a devmap or cpumap name."""
        elements = self._maps[name]
        found: set[str] = set()
        cursor: bytes | None = None
        for _ in range(elements.codec.definition.max_entries):
            items, cursor = elements.side.page(cursor, MAX_ELEMENTS)
            numbers = [_TARGET.unpack(value)[1] for _key, value in items if len(value) == _TARGET.size]
            found |= {self._programs[number - 1] for number in numbers if 0 < number <= len(self._programs)}
            if cursor is None:
                break
        return found

    def declared_in(self, name: str) -> set[str]:
        """Return the declared maps that a map of maps leads to."""
        elements = self._maps[name]
        found: set[str] = set()
        cursor: bytes | None = None
        for _ in range(elements.codec.definition.max_entries):
            items, cursor = elements.side.page(cursor, MAX_ELEMENTS)
            found |= {elements.codec.decode(value) for _key, value in items if made_of(value) is None}
            if cursor is None:
                break
        return found

    def programs_in(self, name: str) -> dict[bytes, str]:
        """Return the programs that a prog_array leads to, by key."""
        elements = self._maps[name]
        found: dict[bytes, str] = {}
        cursor: bytes | None = None
        for _ in range(elements.codec.definition.max_entries):
            items, cursor = elements.side.page(cursor, MAX_ELEMENTS)
            found |= {key: self._programs[_PROGRAM.unpack(value)[0] - 1] for key, value in items}
            if cursor is None:
                break
        return found

    def put_programs(self, name: str, programs: Mapping[bytes, str]) -> None:
        """Let a prog_array lead to these programs, and no others."""
        elements = self._maps[name]
        for key in self.programs_in(name).keys() - programs.keys():
            elements.delete(key)
        for key, program in programs.items():
            elements.update(key, _PROGRAM.pack(self._programs.index(program) + 1))

    @property
    def codecs(self) -> Mapping[str, MapCodec]:
        """The codecs, which know names of interfaces and programs."""
        return self._codecs

    def get(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {"map", "key"} with the element.

        :raises MissingElementError: there is none
        """
        with self._find(request) as elements:
            _check_keys(elements.codec, has_keys=True)
            key = elements.codec.encode_key(request["key"])
            value = elements.side.lookup(key)
            if value is None:
                raise MissingElementError("no such element", context=f"map {elements.codec.name}")
            return self._written(elements, [(key, value)], request)[0]

    def set(self, request: Mapping[str, Any]) -> None:
        """Carry out {"map", "key", "value", "flags"}."""
        flags = _FLAGS.get(request.get("flags", "any"))
        if flags is None:
            raise ParameterError(f"{request['flags']!r}, expected one of {', '.join(_FLAGS)}", context="flags")
        with self._find(request) as elements:
            self._check_writable(elements)
            codec = elements.codec
            _check_keys(codec, has_keys=True)
            key = codec.encode_key(request["key"])
            if codec.is_global_data:
                # Variables that are not named keep what they have now.
                codec = dataclasses.replace(codec, initial=elements.side.lookup(key) or codec.initial)
            if isinstance(elements.side, Store) and elements.side.has_lock:
                flags |= BPF_F_LOCK
            elements.update(key, codec.encode(request["value"], cpus=elements.cpus), flags)

    def delete(self, request: Mapping[str, Any]) -> None:
        """Carry out {"map", "key"}."""
        with self._find(request) as elements:
            self._check_writable(elements)
            _check_keys(elements.codec, has_keys=True)
            elements.delete(elements.codec.encode_key(request["key"]))

    def events(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {"map"} with records of a ring buffer or perf_event_array, as hex, which are taken out of it.

        There may be more. ``lost`` are those that found no room since the service began.
        """
        with self._find(request) as elements:
            name, kind = elements.codec.name, elements.codec.definition.type
            if kind not in _STREAMS:
                raise UnsupportedFeatureError(
                    f"events of a map of type {kind}", "it has elements", context=f"map {name}", remedy="uxdp map dump"
                )
            if not isinstance(elements.side, Store):
                raise UnsupportedFeatureError(
                    "events in the kernel", "who is to have them reads them from there", context=f"map {name}"
                )
            records = elements.side.take_records()
            return {"records": [record.hex() for record in records], "lost": elements.side.lost_records()}

    def push(self, request: Mapping[str, Any]) -> None:
        """Carry out {"map", "value", "replace"}: push a value; ``replace``: out of a full map, the oldest goes."""
        with self._find(request) as elements:
            _check_keys(elements.codec, has_keys=False)
            flags = BPF_EXIST if request.get("replace", False) else BPF_ANY
            value = elements.codec.encode(request["value"])
            elements.side.update(b"", value, flags)
            if elements.mirror is not None:
                elements.mirror.update(b"", value, flags)

    def pop(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {"map"} with the next value of a queue or stack, which is taken out.

        :raises MissingElementError: it is empty
        """
        with self._find(request) as elements:
            _check_keys(elements.codec, has_keys=False)
            value = _sequence(elements.side).pop()
            if value is None:
                raise MissingElementError("is empty", context=f"map {elements.codec.name}")
            return self._written(elements, [(b"", value)], request)[0]

    def peek(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {"map"} with the next value of a queue or stack; {"map", "value"} with whether a Bloom filter may have
        seen the value.

        :raises MissingElementError: it is empty
        """
        with self._find(request) as elements:
            codec = elements.codec
            _check_keys(codec, has_keys=False)
            if codec.definition.type == _BLOOM_FILTER:
                value = codec.encode(request.get("value"))
                return {"value": request.get("value"), "seen": _sequence(elements.side).has_value(value)}
            found = elements.side.lookup(b"")
            if found is None:
                raise MissingElementError("is empty", context=f"map {codec.name}")
            return self._written(elements, [(b"", found)], request)[0]

    def dump(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {"map", "cursor", "zeros"} with the next elements, and the cursor for those behind them, or None.

        Elements of arrays that are all zero are left out, unless ``zeros`` asks for them.
        """
        with self._find(request) as elements:
            return self._dumped(elements, request)

    def _dumped(self, elements: Elements, request: Mapping[str, Any]) -> dict[str, Any]:
        definition = elements.codec.definition
        if not _has_elements(elements):
            raise UnsupportedFeatureError(
                f"reading a map of type {definition.type}",
                "it has no elements to show",
                context=f"map {definition.name}",
            )
        cursor = request.get("cursor")
        count = max(1, min(MAX_ELEMENTS, _MAX_BYTES // (definition.key_size + definition.value_size * elements.cpus)))
        items, following = elements.side.page(None if cursor is None else bytes.fromhex(cursor), count)
        if definition.type in _ARRAYS and not request.get("zeros", False):
            items = [(key, value) for key, value in items if any(value)]
        return {
            "elements": self._written(elements, items, request),
            "cursor": None if following is None else following.hex(),
        }

    def load(self, request: Mapping[str, Any]) -> int:
        """Carry out {"elements": {map: […]}, "source", "check"}; return how many elements there were.

        Nothing is set if one is malformed, or ``check`` is true.
        """
        contents: Contents = {}
        document = request["elements"]
        source = str(request.get("source", "request"))
        for name in document if isinstance(document, dict) else ():
            codec = find_codec(name, self._codecs, "maps of the service")
            self._check_writable(self._of(codec))
            contents |= load_document({name: document[name]}, self._codecs, cpus=self._of(codec).cpus, source=source)
        if not request.get("check", False):
            self.fill(contents)
        return sum(map(len, contents.values()))

    def _find(self, request: Mapping[str, Any]) -> AbstractContextManager[Elements]:
        known = {name: elements.codec for name, elements in self._maps.items()}
        return self._opened(find_codec(request["map"], known, "maps of the service"))

    def _of(self, codec: MapCodec) -> Elements:
        """Return a declared map, or the map of maps that a map is in."""
        parted = split_inner_name(codec.name)
        return self._maps[codec.name if parted is None else parted[0]]

    @contextmanager
    def _opened(self, codec: MapCodec) -> Iterator[Elements]:
        """Give a map: a declared one, or one in a map of maps."""
        elements = self._of(codec)
        parted = split_inner_name(codec.name)
        if parted is None:
            yield elements
            return
        with ExitStack() as stack:
            sides = [_inner_side(outer, parted[1], stack) for outer in (elements.side, elements.mirror)]
            side, mirror = sides
            assert side is not None  # noqa: S101  # only a map of maps has a codec of inner maps
            if isinstance(side, Store):
                codec = dataclasses.replace(codec, definition=dataclasses.replace(side.definition, name=codec.name))
            yield Elements(codec, side, elements.cpus, mirror)

    def _check_writable(self, elements: Elements) -> None:
        name = elements.codec.name
        if name.startswith((".rodata", ".kconfig")):
            raise UnsupportedFeatureError(
                "changing constants", "they are part of the compiled code", context=f"map {name}", remedy="uxdp reload"
            )

    def _written(
        self, elements: Elements, items: Iterable[tuple[bytes, bytes]], request: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        notation = _NOTATIONS.get(request.get("notation", "network"))
        if notation is None:
            raise ParameterError(f"expected one of {', '.join(_NOTATIONS)}", context="notation")
        return elements_of(elements.codec, items, notation)


def map_handlers(current: Callable[[], MapAccess]) -> dict[str, Handler]:
    """Return what answers the control socket's map commands.

    :param current: returns the maps of the version that is served now
    """
    return {
        "map-list": lambda _request: current().definitions(),
        "map-get": lambda request: current().get(request),
        "map-set": lambda request: current().set(request),
        "map-delete": lambda request: current().delete(request),
        "map-dump": lambda request: current().dump(request),
        "map-load": lambda request: current().load(request),
        "map-events": lambda request: current().events(request),
        "map-push": lambda request: current().push(request),
        "map-pop": lambda request: current().pop(request),
        "map-peek": lambda request: current().peek(request),
    }
