"""Translate keys and values of maps between bytes and JSON-able values, by the BTF of the object that declares them.

Bytes are as bpf(2) takes and gives them; the value of a per-CPU map is one value for each CPU, each rounded up to 8
bytes. How values are written is told in map_layout and map_text. Maps, or sides of maps, without BTF are plain bytes,
except what the kernel itself defines: the index of an array, the target in a devmap, cpumap or xskmap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from uxdp_bundle.bpf_object import BpfObject, Section
from uxdp_bundle.btf import Btf, BtfType, Kind
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import map_definitions

from . import map_text
from .errors import ParameterError
from .inner_layout import InnerMap
from .map_layout import (
    Array,
    Bits,
    Enumeration,
    Image,
    Layout,
    Notation,
    Number,
    Opaque,
    Record,
    ValueShapeError,
    Variables,
    describe,
)

_PER_CPU: Final = frozenset({"percpu_array", "percpu_hash", "lru_percpu_hash"})
_PER_CPU_ALIGNMENT: Final = 8  # bpf(2) rounds each CPU's value up to this
_LPM_TRIE: Final = "lpm_trie"
# Keys that are an index of 32 bits, and values that are one: include/uapi/linux/bpf.h.
_INDEXED: Final = frozenset(
    {"array", "percpu_array", "prog_array", "perf_event_array", "array_of_maps", "devmap", "devmap_hash", "cpumap"}
    | {"xskmap"}
)
_TARGETS: Final = frozenset({"prog_array", "devmap", "devmap_hash", "cpumap", "xskmap"})
_WITHOUT_KEYS: Final = frozenset({"queue", "stack", "bloom_filter", "user_ringbuf"})
_WITHOUT_ELEMENTS: Final = frozenset({"ringbuf", "arena"})

_NETWORK_TYPES: Final = frozenset({"__be16", "__be32", "__be64"})
_QUALIFIERS: Final = frozenset({Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_INT_SIGNED: Final = 1  # BTF_INT_*
_INT_CHAR: Final = 2
_INT_BOOL: Final = 4
_NUMBER_SIZES: Final = frozenset({1, 2, 4, 8, 16})
_IN6_ADDR_BYTES: Final = 16
_MISSING: Final = object()
_MAX_DEPTH: Final = 64
# Only unions within unions make more values than bytes and bits: in6_addr makes 28 of 16 bytes.
_MAX_LEAVES_PER_BYTE: Final = 64


class MapValueError(ParameterError):
    """A key or value does not fit its map: ``map_name``, ``path`` within the element, ``seen`` and ``wanted``."""

    def __init__(self, map_name: str, path: str, seen: str, wanted: str, *, source: str = "", remedy: str = "") -> None:
        place = f"map {map_name}, {path}" if path else f"map {map_name}"
        context = f"{source}: {place}" if source else place
        super().__init__(f"{seen}, expected {wanted}", context=context, remedy=remedy)
        self.map_name = map_name
        self.path = path
        self.seen = seen
        self.wanted = wanted

    def at(self, source: str, place: str = "") -> "MapValueError":
        """Return the same error with where the value came from: a file, and the element's place in it."""
        path = ".".join(part for part in (place, self.path) if part)
        return MapValueError(self.map_name, path, self.seen, self.wanted, source=source, remedy=self.remedy)


@dataclass(frozen=True, slots=True)
class MapCodec:
    """The keys and values of one map.

    ``initial`` is the value that missing parts of a given value are taken from; ``is_typed`` tells whether BTF
    describes key or value; ``inner`` is the codec of the maps in a map of maps.
    """

    definition: MapDefinition
    key: Layout
    value: Layout
    initial: bytes
    is_typed: bool
    inner: "MapCodec | None" = None

    @staticmethod
    def for_object(data: bytes) -> "dict[str, MapCodec]":
        """Return a codec for each map of an object, by the map's name.

        :param data: the whole object
        :raises ObjectError: malformed
        """
        bpf_object = BpfObject(data)
        types = _declared_types(bpf_object.btf) if bpf_object.btf is not None else {}
        layouts = _Layouts(bpf_object.btf)
        sections = {section.name: section for section in bpf_object.sections}
        codecs = {}
        definitions = map_definitions(bpf_object)
        names = [definition.name for definition in definitions if not definition.name.startswith(".")]
        for definition in definitions:
            initial = bytes(definition.value_size)
            key_type, value_type = types.get(definition.name, (None, None))
            key = _side(layouts, definition, key_type, definition.key_size, "key")
            value = _side(layouts, definition, value_type, definition.value_size, "value")
            section = sections.get(definition.name)
            if section is not None and bpf_object.btf is not None:
                initial = section.data or initial
                value = _variables(layouts, bpf_object, section)
            is_typed = key_type is not None or value_type is not None or isinstance(value, Variables)
            inner = None
            if definition.inner is not None:
                inner = _inner_codec(layouts, definition, types.get(f"{definition.name}[]", (None, None)))
                value = InnerMap(names)
            codecs[definition.name] = MapCodec(definition, key, value, initial, is_typed, inner)
        return codecs

    @property
    def name(self) -> str:
        """The map's name."""
        return self.definition.name

    @property
    def is_per_cpu(self) -> bool:
        """Whether each CPU has a value of its own."""
        return self.definition.type in _PER_CPU

    @property
    def has_no_keys(self) -> bool:
        """Whether values are pushed, without keys."""
        return self.definition.type in _WITHOUT_KEYS

    @property
    def is_global_data(self) -> bool:
        """Whether this is a section of global variables, whose only key is 0."""
        return isinstance(self.value, Variables)

    def encode_key(self, value: Any, *, notation: Notation = Notation.NETWORK) -> bytes:
        """Return a key's bytes; of an LPM trie also for a prefix as text, ``10.0.0.0/8``.

        :raises MapValueError: it does not fit
        """
        if self.has_no_keys:
            if value not in (None, ""):
                raise MapValueError(self.name, "key", describe(value), "none: the map has no keys")
            return b""
        if self.definition.type in _WITHOUT_ELEMENTS:
            raise MapValueError(self.name, "key", f"a map of type {self.definition.type}", "a map with keys")
        if self.definition.type == _LPM_TRIE and isinstance(value, str):
            content = map_text.prefix(value, self.key.size)
            if content is not None:
                return content
        return self._encode(self.key, bytes(self.key.size), value, "key", notation)

    def decode_key(self, data: bytes, *, notation: Notation = Notation.NETWORK) -> Any:
        """Return a key as a JSON-able value.

        :raises MapValueError: the bytes are not as many as the map's keys have
        """
        if self.has_no_keys:  # where there is anything, it is a value's place
            return int.from_bytes(data, "little") if data else None
        self._check_size(data, self.key.size, "key")
        return self.key.decode(data, 0, notation)

    def encode(self, value: Any, *, cpus: int = 1, notation: Notation = Notation.NETWORK) -> bytes:
        """Return a value's bytes, of a per-CPU map those of ``cpus`` CPUs.

        For a per-CPU map give one value for all CPUs, a list of one for each, or ``{"cpu": 0, "value": …}`` objects,
        of which missing ones are zero. If the value itself is an array, only such objects tell the CPUs apart.

        :raises MapValueError: it does not fit
        """
        if self.definition.type == "user_ringbuf":
            record = map_text.record(value)
            if record is None:
                raise MapValueError(
                    self.name, "value", describe(value), "a record's bytes, as 0x… or with spaces between"
                )
            return record
        if not self.is_per_cpu:
            return self._encode(self.value, self.initial, value, "value", notation)
        if _is_cpu_list(value):
            slots: list[Any] = [_MISSING] * cpus
            for item in value:
                if not isinstance(item["cpu"], int) or not 0 <= item["cpu"] < cpus:
                    raise MapValueError(self.name, "value, cpu", describe(item["cpu"]), f"0..{cpus - 1}")
                slots[item["cpu"]] = item["value"]
        elif isinstance(value, list) and not isinstance(self.value, Array) and not self._is_raw(value):
            slots = value
        else:
            slots = [value] * cpus
        if len(slots) != cpus:
            raise MapValueError(
                self.name,
                "value",
                f"values of {len(slots)} CPUs",
                f"those of {cpus}, or one value for all",
                remedy='give one value, or {"cpu": N, "value": …} for the CPUs that have one',
            )
        padding = bytes(-self.value.size % _PER_CPU_ALIGNMENT)
        content = []
        for cpu, slot in enumerate(slots):
            part = self.initial
            if slot is not _MISSING:
                part = self._encode(self.value, self.initial, slot, f"value[{cpu}]", notation)
            content.append(part + padding)
        return b"".join(content)

    def decode(self, data: bytes, *, notation: Notation = Notation.NETWORK) -> Any:
        """Return a value as a JSON-able value, of a per-CPU map a list of ``{"cpu": 0, "value": …}``.

        :raises MapValueError: the bytes are not as many as the map's values have
        """
        if not self.is_per_cpu:
            self._check_size(data, self.value.size, "value")
            return self.value.decode(data, 0, notation)
        return [
            {"cpu": cpu, "value": self.value.decode(part, 0, notation)} for cpu, part in enumerate(self.split(data))
        ]

    def split(self, data: bytes) -> list[bytes]:
        """Return the CPUs' values, without what they are padded with, of the value of a per-CPU map.

        :raises MapValueError: the bytes are not those of a whole number of CPUs
        """
        step = self.value.size + -self.value.size % _PER_CPU_ALIGNMENT
        if not data or len(data) % step:
            raise MapValueError(self.name, "value", f"{len(data)} bytes", f"{step} for each CPU")
        return [data[start : start + self.value.size] for start in range(0, len(data), step)]

    def _is_raw(self, value: list[Any]) -> bool:
        return map_text.hex_list(value, self.value.size) is not None

    def _encode(self, layout: Layout, initial: bytes, value: Any, what: str, notation: Notation) -> bytes:
        image = Image(initial)
        content = map_text.hex_list(value, layout.size)
        if content is not None:
            return content
        try:
            layout.encode(image, 0, value, notation)
        except ValueShapeError as error:
            place = error.place()
            path = what + (place if place.startswith("[") else f".{place}" if place else "")
            raise MapValueError(self.name, path, error.seen, error.wanted) from error
        return bytes(image.data)

    def _check_size(self, data: bytes, size: int, what: str) -> None:
        if len(data) != size:
            raise MapValueError(self.name, what, f"{len(data)} bytes", f"{size}")


def _is_cpu_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and item.keys() == {"cpu", "value"} for item in value)
    )


# --- from BTF to layouts


def _declared_types(btf: Btf) -> dict[str, tuple[int | None, int | None]]:
    """Return the type ids of keys and values, by map, as far as the declarations give types and not just sizes."""
    types = {}
    for variable in btf.data_section(".maps"):
        members = {name: type_id for name, type_id, _ in btf.members(btf.resolve(variable.size_or_type))}
        types[variable.name] = _sides(btf, members)
        if "values" in members:  # an array of pointers to what inner maps are like, or to functions
            target = btf.resolve(btf.resolve(btf.resolve(members["values"]).extra[0]).size_or_type)
            if target.kind is Kind.STRUCT:
                inner = {name: type_id for name, type_id, _ in btf.members(target)}
                types[f"{variable.name}[]"] = _sides(btf, inner)
    return types


def _sides(btf: Btf, members: Mapping[str, int]) -> tuple[int | None, int | None]:
    sides = [btf.resolve(members[side]).size_or_type if side in members else None for side in ("key", "value")]
    return sides[0], sides[1]


def _inner_codec(layouts: "_Layouts", outer: MapDefinition, types: tuple[int | None, int | None]) -> MapCodec:
    """Return the codec of the maps in a map of maps; their names are the outer map's, and a key."""
    template = outer.inner
    assert template is not None  # noqa: S101  # the caller looked
    key = _side(layouts, template, types[0], template.key_size, "key")
    value = _side(layouts, template, types[1], template.value_size, "value")
    definition = replace(template, name=f"{outer.name}[]")
    return MapCodec(definition, key, value, bytes(template.value_size), types != (None, None))


def _side(layouts: "_Layouts", definition: MapDefinition, type_id: int | None, size: int, side: str) -> Layout:
    if type_id is not None:
        return layouts.get(type_id)
    kinds = _INDEXED if side == "key" else _TARGETS
    if definition.type in kinds and size == 4:
        return Number(size)
    return Opaque(size)


def _variables(layouts: "_Layouts", bpf_object: BpfObject, section: Section) -> Layout:
    """Return the layout of a section of global data, whose map has one element.

    Offsets of global variables are in the symbol table, those of static ones in the BTF.
    """
    if layouts.btf is None:
        return Opaque(section.size)
    symbols = {symbol.name: symbol.value for symbol in bpf_object.symbols if symbol.section == section.index}
    members = {}
    for variable, offset in layouts.data_section(section.name):
        layout = layouts.get(variable.size_or_type)
        offset = symbols.get(variable.name, offset)
        if offset + layout.size > section.size:
            raise ObjectError(f"reaches outside of {section.name}", context=f"variable {variable.name}")
        members[variable.name] = (offset, layout)
    return Variables(section.name, section.size, members) if members else Opaque(section.size)


class _Layouts:
    """The layouts of one object's types, each made once."""

    def __init__(self, btf: Btf | None) -> None:
        self.btf = btf
        self._made: dict[int, Layout] = {}

    def data_section(self, name: str) -> list[tuple[BtfType, int]]:
        """Return the variables of a section of data and their offsets as BTF has them."""
        btf = self._btf()
        variables = btf.data_section(name)
        found = next((t for t in btf.types if t.kind is Kind.DATASEC and t.name == name), None)
        offsets = found.extra[1::3] if found is not None else ()
        return [pair for pair in zip(variables, offsets, strict=True) if pair[0].kind is Kind.VAR]

    def get(self, type_id: int, depth: int = 0) -> Layout:
        """Return the layout of a type.

        :raises ObjectError: a type without size, members outside of their structure, structures without end
        """
        made = self._made.get(type_id)
        if made is None:
            where = f".BTF type[{type_id}]"
            if depth > _MAX_DEPTH:
                raise ObjectError(f"types within types, more than {_MAX_DEPTH} deep", context=where)
            made = self._make(type_id, depth, where)
            if made.leaves > _MAX_LEAVES_PER_BYTE * (made.size + 1):
                raise ObjectError(f"{made.leaves} values in {made.size} bytes", context=where)
            self._made[type_id] = made
        return made

    def _btf(self) -> Btf:
        if self.btf is None:
            raise ObjectError("there is no BTF", context="object")
        return self.btf

    def _make(self, type_id: int, depth: int, where: str) -> Layout:
        btf = self._btf()
        found = btf.resolve(type_id)
        size = btf.size(type_id)
        if found.kind is Kind.INT:
            return self._int(found, size, network=self._is_network(type_id))
        if found.kind is Kind.PTR:
            return Number(size)
        if found.kind is Kind.ARRAY:
            element, _index, count = found.extra
            return Array(self.get(element, depth + 1), count, text=self._is_char(element))
        if found.kind in (Kind.STRUCT, Kind.UNION):
            is_in6_addr = found.name == "in6_addr" and size == _IN6_ADDR_BYTES
            return Record(size, dict(self._members(found, size, depth, where)), is_in6_addr=is_in6_addr)
        if found.kind in (Kind.ENUM, Kind.ENUM64):
            return self._enumeration(found, size)
        return Opaque(size)

    def _int(self, found: BtfType, size: int, *, network: bool) -> Layout:
        encoding, shift, bits = found.extra[0] >> 24, found.extra[0] >> 16 & 0xFF, found.extra[0] & 0xFF
        signed = bool(encoding & _INT_SIGNED)
        if shift == 0 and bits == 8 * size and size in _NUMBER_SIZES:
            return Number(size, signed=signed, network=network, boolean=bool(encoding & _INT_BOOL))
        if bits > 0 and shift + bits <= 8 * size:  # as compilers wrote bit fields before BTF had them
            return Bits(shift, bits, signed=signed)
        return Opaque(size)

    def _enumeration(self, found: BtfType, size: int) -> Layout:
        btf, step = self._btf(), 2 if found.kind is Kind.ENUM else 3
        values = {}
        for i in range(0, len(found.extra), step):
            value = found.extra[i + 1] | (found.extra[i + 2] << 32 if step == 3 else 0)
            value &= (1 << 8 * size) - 1
            sign = 1 << 8 * size - 1
            values[btf.string(found.extra[i])] = (value ^ sign) - sign if found.kind_flag else value
        return Enumeration(size, values, signed=found.kind_flag)

    def _members(self, found: BtfType, size: int, depth: int, where: str) -> list[tuple[str, tuple[int, Layout]]]:
        """Return the members of a structure or union; those of anonymous ones as if they were its own."""
        members: list[tuple[str, tuple[int, Layout]]] = []
        for index, (name, type_id, bit_offset) in enumerate(self._btf().members(found)):
            bits = found.extra[3 * index + 2] >> 24 if found.kind_flag else 0
            layout = self._bit_field(type_id, bit_offset % 8, bits) if bits else self.get(type_id, depth + 1)
            offset = bit_offset // 8
            if offset + layout.size > size or (bit_offset % 8 and not isinstance(layout, Bits)):
                raise ObjectError(f"member {name!r} at bit {bit_offset} of {size} bytes", context=where)
            if not name and isinstance(layout, Record):
                members += [(inner, (offset + at, deeper)) for inner, (at, deeper) in layout.members.items()]
            elif name:
                members.append((name, (offset, layout)))
        return members

    def _bit_field(self, type_id: int, shift: int, bits: int) -> Layout:
        found = self._btf().resolve(type_id)
        signed = bool(found.extra[0] >> 24 & _INT_SIGNED) if found.kind is Kind.INT else found.kind_flag
        return Bits(shift, bits, signed=signed)

    def _is_network(self, type_id: int) -> bool:
        btf = self._btf()
        for _ in range(_MAX_DEPTH):
            found = btf.type(type_id)
            if found.kind is Kind.TYPEDEF and found.name in _NETWORK_TYPES:
                return True
            if found.kind is not Kind.TYPEDEF and found.kind not in _QUALIFIERS:
                return False
            type_id = found.size_or_type
        return False

    def _is_char(self, type_id: int) -> bool:
        """Whether bpftool takes an array of this type for text: qualified ``char``, but no typedef of it."""
        btf = self._btf()
        for _ in range(_MAX_DEPTH):
            found = btf.type(type_id)
            if found.kind not in _QUALIFIERS:
                is_char = found.name == "char" or bool(found.extra and found.extra[0] >> 24 & _INT_CHAR)
                return found.kind is Kind.INT and found.size_or_type == 1 and is_char
            type_id = found.size_or_type
        return False
