"""What an object says about itself: programs, maps, helpers, context accesses, parameters, license.

The same derivation fills the manifest when a bundle is built and checks it when a bundle is bound, so a manifest
cannot lie about its object. FORMAT.md, "Derived facts", specifies it.
"""

from dataclasses import dataclass
from typing import Final

from .bpf_object import STB_LOCAL, BpfObject
from .btf import Btf, Kind
from .context_access import ContextAccess, context_accesses
from .errors import ObjectError
from .helpers import NOT_FOR_XDP, helper_name
from .instructions import JUMP_TABLES, Code, Function
from .manifest import MAX_PROGRAMS, MapDefinition, Param, Program
from .map_definitions import global_data_kind, is_static, map_definitions

# What libbpf's section names ask for. Other names that begin with "xdp" ("xdp_router", "xdp/lb", "xdp1") are those of
# older objects: bpftool (with ``type xdp``) and iproute2 load them as plain XDP programs.
_SECTION_FLAGS: Final = {
    "xdp": (),
    "xdp.frags": ("frags",),
    "xdp/devmap": ("devmap",),
    "xdp.frags/devmap": ("devmap", "frags"),
    "xdp/cpumap": ("cpumap",),
    "xdp.frags/cpumap": ("cpumap", "frags"),
}
_MANUAL: Final = "?"  # in front of a section's name: not loaded unless asked for
_SUBPROGRAMS: Final = ".text"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the kernel will refuse: what, and the source line if the object knows it."""

    message: str
    where: str


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """Everything that is derived from an object."""

    license: str
    programs: tuple[Program, ...]
    maps: tuple[MapDefinition, ...]
    xdp_md: tuple[str, ...]
    params: tuple[Param, ...]
    kernel: tuple[str, ...]
    accesses: tuple[ContextAccess, ...]
    # Functions in sections of other program types, as "name (section)" with their line.
    other_programs: tuple[Finding, ...]
    forbidden: tuple[Finding, ...]


# Larger constants are tables that belong to the program; their defaults would fill the manifest.
MAX_PARAM_BYTES: Final = 4096


def object_facts(data: bytes | memoryview) -> ObjectFacts:
    """Derive the facts of one eBPF object.

    :param data: the whole object
    :raises ObjectError: malformed in a way that no loader accepts
    """
    bpf_object = BpfObject(data)
    code = Code(bpf_object)
    entries: list[Function] = []
    others: list[Finding] = []
    for section in bpf_object.sections:
        if not section.executable or section.name == _SUBPROGRAMS:
            continue
        for function in code.functions[section.index]:
            if function.bind == STB_LOCAL:
                raise ObjectError(
                    f"{function.name} is static, which libbpf refuses in section {section.name!r}",
                    context=code.where(function, function.start),
                    remedy="remove the keyword static, or SEC(…) if it is a subprogram",
                )
            if section.name.removeprefix(_MANUAL).startswith("xdp"):
                entries.append(function)
            else:
                finding = f"{function.name} is in section {section.name!r}"
                others.append(Finding(finding, code.where(function, function.start)))
    if len(entries) > MAX_PROGRAMS:
        raise ObjectError(f"{len(entries)} XDP programs, at most {MAX_PROGRAMS} allowed", context="object")
    forbidden: dict[Finding, None] = {}  # keys of a dict: a set that keeps its order
    programs = tuple(_program(code, entry, forbidden) for entry in entries)
    maps = map_definitions(bpf_object)
    accesses = tuple(context_accesses(bpf_object, code, entries))
    return ObjectFacts(
        license=bpf_object.license,
        programs=programs,
        maps=maps,
        xdp_md=tuple(sorted({access.field for access in accesses})),
        params=_params(bpf_object),
        kernel=_requirements(bpf_object, code, entries, programs, maps),
        accesses=accesses,
        other_programs=tuple(others),
        forbidden=tuple(forbidden),
    )


def _program(code: Code, entry: Function, forbidden: dict[Finding, None]) -> Program:
    section = code.section(entry).name
    helpers: set[str] = set()
    kfuncs: set[str] = set()
    instructions = 0
    for function in code.reachable(entry):
        instructions += function.end - function.start
        for slot, call in code.calls(function).items():
            if call.kfunc is not None:
                kfuncs.add(call.kfunc)
            elif call.helper is not None:
                name = helper_name(call.helper)
                helpers.add(name)
                if name in NOT_FOR_XDP:
                    forbidden[Finding(f"XDP programs may not call {name}", code.where(function, slot))] = None
    flags = _SECTION_FLAGS.get(section.removeprefix(_MANUAL), ())
    return Program(
        name=entry.name,
        section=section,
        flags=(*flags, "manual") if section.startswith(_MANUAL) else flags,
        helpers=tuple(sorted(helpers)),
        kfuncs=tuple(sorted(kfuncs)),
        instructions=instructions,
    )


def _params(bpf_object: BpfObject) -> tuple[Param, ...]:
    """Return the global constants, which libbpf's users set before loading, sorted by name."""
    btf = bpf_object.btf
    params: list[Param] = []
    for section in bpf_object.sections if btf is not None else ():
        if btf is None or global_data_kind(section) != "rodata":
            continue
        symbols = bpf_object.global_symbols(section.index)
        for variable in btf.data_section(section.name):
            symbol = symbols.get(variable.name)
            if symbol is None or is_static(variable, symbol):
                continue
            type_id = variable.size_or_type
            size = btf.size(type_id)
            content = section.data[symbol.value : symbol.value + size]
            if len(content) != size:
                raise ObjectError(f"reaches outside of {section.name}", context=f"constant {variable.name}")
            if 0 < size <= MAX_PARAM_BYTES:
                params.append(Param(variable.name, btf.spell(type_id), size, _default(btf, type_id, content)))
    return tuple(sorted(params, key=lambda param: param.name))


def _default(btf: Btf, type_id: int, content: bytes) -> int | str:
    found = btf.resolve(type_id)
    if found.kind is Kind.INT and len(content) <= 8:
        signed = bool(found.extra[0] >> 24 & 1)  # BTF_INT_SIGNED
        return int.from_bytes(content, "little", signed=signed)
    if found.kind in (Kind.ENUM, Kind.ENUM64):
        return int.from_bytes(content, "little", signed=found.kind_flag)
    return content.hex()


def _requirements(
    bpf_object: BpfObject,
    code: Code,
    entries: list[Function],
    programs: tuple[Program, ...],
    maps: tuple[MapDefinition, ...],
) -> tuple[str, ...]:
    """Return the kernel features that the object needs beyond basic XDP, by name, sorted."""
    features = {f"map:{definition.type}" for definition in maps}
    features |= {f"map:{definition.inner.type}" for definition in maps if definition.inner is not None}
    features |= {flag for program in programs for flag in program.flags if flag != "manual"}
    if bpf_object.btf is not None:
        features.add("btf")
    if any(definition.name == ".kconfig" for definition in maps):
        features.add("kconfig")
    if any(global_data_kind(section) is not None for section in bpf_object.sections):
        features.add("global_data")
    if bpf_object.section(JUMP_TABLES) is not None:
        features.add("jump_tables")
    for entry in entries:
        functions = code.reachable(entry)
        if len(functions) > 1:
            features.add("bpf2bpf")
        for function in functions:
            # A weak kfunc is one that the program can do without.
            calls = code.calls(function).values()
            features |= {f"kfunc:{call.kfunc}" for call in calls if call.kfunc is not None and not call.weak}
    executable = {section.name for section in bpf_object.sections if section.executable}
    if bpf_object.btf_ext is not None and executable & bpf_object.btf_ext.core_relocations.keys():
        features.add("core")
    return tuple(sorted(features))
