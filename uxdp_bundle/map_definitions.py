"""The maps that libbpf will create for an object: BTF-defined maps, one per section of global data, and .kconfig.

Sizes are as the object declares them. libbpf adjusts some to the machine that it loads on: a ring buffer of any size
becomes a power of two of pages, a perf_event_array of 0 entries gets one per CPU, and before libbpf 1.2 all global
data could be mapped. Sections such as .bss.custom need a libbpf that is newer still.

Source: libbpf, parse_btf_map_def, bpf_object__init_maps and btf_fixup_datasec; types are named as bpftool names them
"""

from dataclasses import replace
from typing import Final

from .bpf_object import SHN_UNDEF, SHT_NOBITS, SHT_PROGBITS, BpfObject, Section, Symbol
from .btf import Btf, BtfType, Kind
from .errors import ObjectError
from .manifest import MAX_MAPS, MapDefinition

BPF_F_WRONLY: Final = 1 << 4
BPF_F_RDONLY_PROG: Final = 1 << 7
BPF_F_MMAPABLE: Final = 1 << 10

# MAP_TYPES[n] is BPF_MAP_TYPE_n (include/uapi/linux/bpf.h) as bpftool names it.
MAP_TYPES: Final = (
    *("unspec", "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace"),
    *("cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps", "devmap"),
    *("sockmap", "cpumap", "xskmap", "sockhash", "cgroup_storage", "reuseport_sockarray", "percpu_cgroup_storage"),
    *("queue", "stack", "sk_storage", "devmap_hash", "struct_ops", "ringbuf", "inode_storage", "task_storage"),
    *("bloom_filter", "user_ringbuf", "cgrp_storage", "arena", "insn_array"),
)
_BTF_VAR_STATIC = 0
_BTF_VAR_GLOBAL_ALLOCATED = 1
_MAPS_OF_MAPS = frozenset({"array_of_maps", "hash_of_maps"})
_LIBBPF_PIN_BY_NAME = 1
_INT_BYTES = 4
_MAX_SIZE = 0xFFFFFFFF
_KCONFIG = ".kconfig"
# Members of a definition whose value is the N of `int (*member)[N]`.
_NUMBERS: Final = ("type", "key_size", "value_size", "max_entries", "map_flags", "pinning", "numa_node")


def map_definitions(bpf_object: BpfObject) -> tuple[MapDefinition, ...]:
    """Return the maps in libbpf's order: those of .maps, then the data sections, then .kconfig.

    :raises ObjectError: a definition that libbpf refuses too; ``context`` names the map
    """
    if bpf_object.section("maps") is not None:
        raise ObjectError(
            "defines maps in the section 'maps', which libbpf 1.0 and later refuse",
            context="section maps",
            remedy='define them with BTF: struct { __uint(type, …); … } name SEC(".maps");',
        )
    return (*_declared(bpf_object), *_global_data(bpf_object), *_kconfig(bpf_object))


def global_data_kind(section: Section) -> str | None:
    """Return ``data``, ``rodata`` or ``bss`` if libbpf makes a map of the section, else None."""
    if section.size == 0 or section.executable:
        return None
    for kind, wanted in (("data", SHT_PROGBITS), ("rodata", SHT_PROGBITS), ("bss", SHT_NOBITS)):
        if section.type == wanted and (section.name == f".{kind}" or section.name.startswith(f".{kind}.")):
            return kind
    return None


def is_static(variable: BtfType, symbol: Symbol | None) -> bool:
    """Whether libbpf hides a variable from its users: it is static, or its visibility makes it as good as static."""
    if variable.kind is not Kind.VAR or variable.extra[0] == _BTF_VAR_STATIC:
        return True
    return symbol is not None and symbol.is_hidden


def _declared(bpf_object: BpfObject) -> list[MapDefinition]:
    section = bpf_object.section(".maps")
    if section is None:
        return []
    if bpf_object.btf is None:
        raise ObjectError(
            "there are maps, but no BTF that describes them", context="section .maps", remedy="compile with -g"
        )
    btf = bpf_object.btf
    symbols = bpf_object.global_symbols(section.index)
    variables = btf.data_section(".maps")
    if len(variables) > MAX_MAPS:
        raise ObjectError(f"{len(variables)} maps, at most {MAX_MAPS} allowed", context="section .maps")
    definitions: dict[int, MapDefinition] = {}
    found = []
    for variable in variables:
        where = f"map {variable.name}"
        if variable.kind is not Kind.VAR or variable.extra[0] != _BTF_VAR_GLOBAL_ALLOCATED:
            raise ObjectError("is static, which libbpf refuses", context=where, remedy="remove the keyword static")
        if variable.name not in symbols:
            raise ObjectError("is described by BTF, but there is no such symbol in .maps", context=where)
        type_id = btf.resolve_id(variable.size_or_type)
        if btf.type(type_id).kind is not Kind.STRUCT:
            raise ObjectError("is no structure", context=where)
        if type_id not in definitions:  # several maps may have one definition
            definitions[type_id] = _definition(btf, variable.name, btf.type(type_id), outer=True)
        found.append((symbols[variable.name].value, replace(definitions[type_id], name=variable.name)))
    return [definition for _offset, definition in sorted(found, key=lambda item: item[0])]


def _definition(btf: Btf, name: str, structure: BtfType, *, outer: bool) -> MapDefinition:
    numbers = dict.fromkeys((*_NUMBERS, "map_extra"), 0)
    inner = None
    members = btf.members(structure)
    for position, (member, type_id, _offset) in enumerate(members):
        where = f"map {name}, {member}"
        if member in ("key", "value"):
            _set_size(numbers, f"{member}_size", btf.size(_pointee(btf, type_id, where)), where)
        elif member in ("key_size", "value_size"):
            _set_size(numbers, member, _number(btf, type_id, where), where)
        elif member == "values":
            if position != len(members) - 1:
                raise ObjectError("must be the last member", context=where)
            _set_size(numbers, "value_size", _INT_BYTES, where)  # a descriptor or id
            inner = _inner(btf, name, type_id, _type_name(numbers["type"]) if outer else "", where)
        elif member in _NUMBERS and (outer or member != "pinning"):
            numbers[member] = _number(btf, type_id, where)
        elif member == "map_extra":
            numbers["map_extra"] = _extra(btf, type_id, where)
        else:
            raise ObjectError("libbpf knows no such member here", context=where)
    if numbers["type"] == 0:
        raise ObjectError("has no type", context=f"map {name}", remedy="add __uint(type, BPF_MAP_TYPE_…)")
    if numbers["pinning"] > _LIBBPF_PIN_BY_NAME:
        raise ObjectError(f"{numbers['pinning']}, expected LIBBPF_PIN_BY_NAME", context=f"map {name}, pinning")
    return MapDefinition(
        name=name,
        type=_type_name(numbers["type"]),
        key_size=numbers["key_size"],
        value_size=numbers["value_size"],
        max_entries=numbers["max_entries"],
        flags=numbers["map_flags"],
        pinning=numbers["pinning"] == _LIBBPF_PIN_BY_NAME,
        inner=inner,
        extra=numbers["map_extra"] if outer else 0,
    )


def _inner(btf: Btf, name: str, type_id: int, outer_type: str, where: str) -> MapDefinition | None:
    """Return what __array(values, …) says about inner maps; None for an array of programs."""
    array = btf.resolve(type_id)
    if array.kind is not Kind.ARRAY or array.extra[2] != 0:
        raise ObjectError("expected an array of unknown length, as __array() makes it", context=where)
    target = btf.resolve(_pointee(btf, array.extra[0], where))
    if outer_type in _MAPS_OF_MAPS and target.kind is Kind.STRUCT:
        return _definition(btf, "", target, outer=False)
    if outer_type == "prog_array" and target.kind is Kind.FUNC_PROTO:
        return None
    raise ObjectError("expected inner maps in a map of maps, or functions in a prog_array", context=where)


def _type_name(number: int) -> str:
    return MAP_TYPES[number] if number < len(MAP_TYPES) else f"type#{number}"


def _set_size(numbers: dict[str, int], name: str, size: int, where: str) -> None:
    if size > _MAX_SIZE or numbers[name] not in (0, size):
        raise ObjectError(f"{size} bytes, expected at most {_MAX_SIZE} and the same everywhere", context=where)
    numbers[name] = size


def _pointee(btf: Btf, type_id: int, where: str) -> int:
    pointer = btf.resolve(type_id)
    if pointer.kind is not Kind.PTR:
        raise ObjectError("expected a pointer, as __type() makes it", context=where)
    return pointer.size_or_type


def _number(btf: Btf, type_id: int, where: str) -> int:
    """Return N of ``int (*member)[N]``, which is how __uint() writes a number."""
    array = btf.resolve(_pointee(btf, type_id, where))
    if array.kind is not Kind.ARRAY:
        raise ObjectError("expected a number, as __uint() makes it", context=where)
    return array.extra[2]


def _extra(btf: Btf, type_id: int, where: str) -> int:
    """Return a number of 64 bits, which __ulong() writes as the one value of an enumeration."""
    number = btf.resolve(type_id)
    if number.kind is Kind.ENUM and number.vlen == 1:
        return number.extra[1] % (1 << 64)
    if number.kind is Kind.ENUM64 and number.vlen == 1:
        _name, low, high = number.extra
        return low | high << 32
    return _number(btf, type_id, where)


def _global_data(bpf_object: BpfObject) -> list[MapDefinition]:
    result = []
    for section in bpf_object.sections:
        kind = global_data_kind(section)
        if kind is not None:
            variables = bpf_object.btf.data_section(section.name) if bpf_object.btf is not None else []
            symbols = bpf_object.global_symbols(section.index)
            mappable = any(not is_static(variable, symbols.get(variable.name)) for variable in variables)
            flags = (BPF_F_MMAPABLE if mappable else 0) | (BPF_F_RDONLY_PROG if kind == "rodata" else 0)
            result.append(_array(section.name, section.size, flags))
    return result


def _kconfig(bpf_object: BpfObject) -> list[MapDefinition]:
    """Return the map that libbpf fills with the kernel's configuration, if the object asks for any of it."""
    if bpf_object.btf is None:
        return []
    variables = {variable.name: variable for variable in bpf_object.btf.data_section(_KCONFIG)}
    wanted = bpf_object.global_symbols(SHN_UNDEF).keys() & variables.keys()
    if not wanted:
        return []
    # Sorted by alignment as libbpf does it, no variable needs padding.
    size = sum(bpf_object.btf.size(variables[name].size_or_type) for name in wanted)
    return [_array(_KCONFIG, size, BPF_F_MMAPABLE | BPF_F_RDONLY_PROG)]


def _array(name: str, size: int, flags: int) -> MapDefinition:
    return MapDefinition(
        name=name,
        type="array",
        key_size=_INT_BYTES,
        value_size=size,
        max_entries=1,
        flags=flags,
        pinning=False,
        inner=None,
    )
