"""Replace an object's maps and global data in IR by their native counterparts.

- a map becomes a constant ``struct uxdp_map`` (native/abi.h), so that everything that depends on its definition folds;
  its memory is an external symbol that the loader resolves;
- a constant in .rodata stays what it is, without ``volatile``: after the kernel has frozen the map it cannot change;
- a variable in .data or .bss becomes an external symbol: the loader resolves it into the memory of the section's map;
- values that libbpf chose at load time (CO-RE, kconfig) replace the loads of their placeholders.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES

from .ir_text import Function, Module

STORE: Final = "uxdp.store."
CPU_STORE: Final = "uxdp.cpu_store."
# An absolute symbol, whose address is the number: what is compiled ahead of time runs with any number of workers.
NUM_CPUS: Final = "uxdp.num_cpus"
_GLOBAL: Final = re.compile(
    r'^@(?P<name>"[^"]*"|[-\w$.]+) = (?P<linkage>(?:[a-z_]+(?:\([^)]*\))? )*?)(?P<kind>global|constant) (?P<rest>.*)$'
)
_SECTION: Final = re.compile(r', section "(?P<name>[^"]*)"')
_ALIGN: Final = re.compile(r", align (\d+)")
_EXTRA_SHIFT: Final = 48
_DROPPED: Final = frozenset({"llvm.used", "llvm.compiler.used"})


@dataclass(frozen=True, slots=True)
class NativeMap:
    """A map as the compiler sees it: its definition, its number, and the number of workers (0: the loader knows)."""

    definition: MapDefinition
    number: int
    num_cpus: int


class AddressInDataError(Exception):
    """A constant holds an address, and there is no telling what the kernel has there; ``name`` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} holds an address")
        self.name = name


def rewrite_globals(
    module: Module, maps: Sequence[NativeMap], *, variables: Mapping[str, str], constants: Mapping[str, bytes]
) -> None:
    """Rewrite the global variables of ``module``.

    :param maps: the maps that sources declare in ``.maps``
    :param variables: global variables that are writable, by name: the section whose memory they live in
    :param constants: new content of .rodata variables, by name, where it differs from the IR's
    :raises AddressInDataError: a constant without a name in the object whose initial value holds an address
    """
    by_name = {native.definition.name: native for native in maps}
    items: list[str | Function] = []
    for item in module.items:
        match = _GLOBAL.match(item) if isinstance(item, str) else None
        if match is None:
            items.append(item)
            continue
        name = match["name"].strip('"')
        section = _SECTION.search(match["rest"])
        if name in _DROPPED or (section is not None and section["name"] in ("license", "version")):
            continue
        if section is not None and section["name"] == ".maps":
            items += _map_global(match["name"], by_name[name])
        elif name in variables:
            items.append(f"@{match['name']} = external global i8")
        elif name in constants:
            align = _ALIGN.search(match["rest"])
            content = "".join(f"\\{byte:02X}" for byte in constants[name])
            items.append(
                f'@{match["name"]} = internal constant [{len(constants[name])} x i8] c"{content}"'
                f", align {align[1] if align is not None else '8'}"
            )
        elif "@" in "".join(match["rest"].split('"')[::2]):
            raise AddressInDataError(name)
        else:
            items.append(_SECTION.sub("", f"@{match['name']} = {match['linkage']}{match['kind']} {match['rest']}"))
    items.append(_declared(maps))
    if any(native.num_cpus == 0 for native in maps):
        items.append(f'@"{NUM_CPUS}" = external global i8')
    module.items = items


def _declared(maps: Sequence[NativeMap]) -> str:
    """Return the table of all maps by their numbers, in which code for any map finds inner maps that are declared."""
    pointers = ", ".join(f'ptr @"{native.definition.name}"' for native in maps)
    return f"@uxdp_declared = constant [{len(maps)} x ptr] [{pointers}], align 8"


def num_cpus_operand(num_cpus: int, extra: int = 0) -> str:
    """Return the number of workers as an operand of 64 bits, and a map's ``extra`` in its upper 16."""
    if num_cpus:
        return str(num_cpus | extra << _EXTRA_SHIFT)
    symbol = f'ptrtoint (ptr @"{NUM_CPUS}" to i64)'
    return f"add (i64 {symbol}, i64 {extra << _EXTRA_SHIFT})" if extra else symbol


def _map_global(name: str, native: NativeMap) -> list[str]:
    definition = native.definition
    plain = name.strip('"')
    kind = MAP_TYPES.index(definition.type)
    numbers = (
        *(kind, definition.key_size, definition.value_size, definition.max_entries, definition.flags, native.number),
    )
    # struct uxdp_map has num_cpus, a zero and extra side by side: together they are one little-endian 64-bit number.
    num_cpus = num_cpus_operand(native.num_cpus, definition.extra)
    store, cpu_store = f'@"{STORE}{plain}"', f'@"{CPU_STORE}{plain}"'
    fields = ", ".join(f"i32 {number}" for number in numbers)
    return [
        f"{store} = external global i8, align 4096",
        f"{cpu_store} = external global i8, align 8",
        f"@{name} = internal constant {{ {', '.join(['i32'] * len(numbers))}, i64, ptr, ptr }} "
        f"{{ {fields}, i64 {num_cpus}, ptr {store}, ptr {cpu_store} }}, align 8",
    ]


def constant_loads(module: Module) -> None:
    """Drop ``volatile`` from loads of constants: their memory is read-only once the program runs."""
    constants = set()
    for item in module.items:
        match = _GLOBAL.match(item) if isinstance(item, str) else None
        if match is not None and match["kind"] == "constant":
            constants.add(f"@{match['name']}")
    pattern = re.compile(r"load volatile (?P<type>\S+), ptr (?P<name>@(?:\"[^\"]*\"|[-\w$.]+))")

    def plain(match: re.Match[str]) -> str:
        if match["name"] in constants:
            return f"load {match['type']}, ptr {match['name']}"
        return match[0]

    element = re.compile(
        r"load volatile (?P<type>\S+), "
        r"(?P<pointer>ptr getelementptr (?:[a-z]+ )*\([^,]*, ptr (?P<name>@(?:\"[^\"]*\"|[-\w$.]+)),)"
    )

    def plain_element(match: re.Match[str]) -> str:
        if match["name"] in constants:
            return f"load {match['type']}, {match['pointer']}"
        return match[0]

    for function in module.functions:
        function.lines = [
            element.sub(plain_element, pattern.sub(plain, line)) if "load volatile" in line else line
            for line in function.lines
        ]


def substitute_values(module: Module, values: Mapping[str, int]) -> None:
    """Replace loads of placeholders by the numbers that libbpf chose.

    :param values: number by the placeholder's name, such as ``llvm.xdp_md:0:4$0:1``
    """
    pattern = re.compile(r'^  (?P<name>%\S+) = load (?P<type>i\d+), ptr @(?P<global>"[^"]*"|[-\w$.]+)(?:, .*)?$')
    for function in module.functions:
        lines = []
        for line in function.lines:
            match = pattern.match(line)
            name = match["global"].strip('"') if match is not None else ""
            if match is not None and name in values:
                line = f"  {match['name']} = add {match['type']} {values[name]}, 0"
            lines.append(line)
        function.lines = lines
