"""Maps of maps in IR: which template an inner map was made by, so that calls on it fold as those on declared maps do.

The kernel demands that all inner maps of an outer one have the type, sizes and flags of its template, so all of these
are constants wherever a pointer can come from that outer map alone. What may differ is the number of elements, and
where the memory is. A pointer that came another way, such as an argument of a subprogram, works as well, on code for
any definition. See native/maps/nested.h.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.ir_syntax import NAME, split_arguments
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES

from .ir_text import Function, result_of

OUTER_TYPES: Final = frozenset({"array_of_maps", "hash_of_maps"})
INNER_TYPES: Final = frozenset(
    {"array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "lpm_trie", "queue", "stack"}
)
# Why others are refused; SUPPORT.md says the same.
_NAMELESS: Final = "records and redirects are told by the map's name, which an inner map has not got"
REFUSED_INNER: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ringbuf", "user_ringbuf", "perf_event_array"), _NAMELESS),
    **dict.fromkeys(("devmap", "devmap_hash", "cpumap", "xskmap"), _NAMELESS),
    "bloom_filter": "a bundle does not say how many hashes an inner one has",
}
# The operand of a helper that is a map.
MAP_OPERANDS: Final[Mapping[str, int]] = {
    "bpf_map_lookup_elem": 0,
    "bpf_map_update_elem": 0,
    "bpf_map_delete_elem": 0,
    "bpf_for_each_map_elem": 0,
    "bpf_map_lookup_percpu_elem": 0,
    "bpf_map_push_elem": 0,
    "bpf_map_pop_elem": 0,
    "bpf_map_peek_elem": 0,
}
# As sources have it, and as the compiler rewrites it.
_LOOKUP: Final = re.compile(
    r"call ptr (?:(?:\([^()]*\) )?inttoptr \(i64 1 to ptr\)|@\"uxdp\.call\.map_lookup_elem\.\d+\")"
    r"\(ptr (?:\w+ )*@(?P<map>[^,]+),"
)
_POINTER: Final = re.compile(rf"ptr (?P<value>[%@]{NAME}|null)")
_COPY: Final = re.compile(rf"(?:freeze ptr|bitcast ptr) (?P<value>%{NAME})(?: to ptr)?$")
_CONSTANT_SIZE: Final = frozenset({"array", "percpu_array"})
_BPF_F_INNER_MAP: Final = 1 << 12


def check_inner(definition: MapDefinition, place: str) -> None:
    """Refuse a map of maps whose inner maps have no native implementation.

    :raises UnsupportedFeatureError: ``context`` is the place
    """
    inner = definition.inner
    if inner is None:
        reason = f"map {definition.name} does not declare what its inner maps are like"
    elif inner.type not in INNER_TYPES:
        why = REFUSED_INNER.get(inner.type, "it has no native implementation")
        reason = f"maps of type {inner.type} in map {definition.name}: {why}"
    else:
        return
    raise UnsupportedFeatureError(f"map type {definition.type}", reason, context=place or f"map {definition.name}")


def has_constant_size(template: MapDefinition) -> bool:
    """Whether all inner maps have the template's number of elements.

    Source: kernel/bpf/arraymap.c, array_map_meta_equal; a lookup in a per-CPU array is inlined with its template's
    """
    return template.type in _CONSTANT_SIZE and not template.flags & _BPF_F_INNER_MAP


class InnerMaps:
    """What the pointers of one function are, as far as they may be inner maps."""

    def __init__(
        self,
        function: Function,
        templates: Mapping[str, MapDefinition],
        declared: Mapping[str, MapDefinition] = MappingProxyType({}),
    ) -> None:
        """Look at a function before its calls are rewritten, or afterwards.

        :param templates: by the name of the outer map, as the module has it
        :param declared: maps that may stand in for inner ones, by their names
        """
        self._templates = templates
        self._declared = declared
        self._sources: dict[str, tuple[str, ...]] = {}
        self._outers: dict[str, str] = {}
        for line in function.lines if templates else ():
            name, rest = result_of(line) or ("", "")
            if (match := _LOOKUP.search(rest)) and match["map"].strip('"') in templates:
                self._outers[name] = match["map"].strip('"')
            elif rest.startswith("phi ptr "):
                pieces = split_arguments(rest.removeprefix("phi ptr "))
                self._sources[name] = tuple(piece[2:].rpartition(", ")[0] for piece in pieces)
            elif rest.startswith("select i1 ") and ", ptr " in rest:
                self._sources[name] = tuple(_POINTER.findall(rest))
            elif match := _COPY.match(rest):
                self._sources[name] = (match["value"],)

    def template_of(self, value: str) -> MapDefinition | None:
        """Return the template that a value can only be a map of, if it is one; None if there is no telling.

        A declared map counts as one of the template if it could be in the outer map: programs have such for when there
        is no inner map for them.
        """
        outers, others = self._origins(value)
        found = [self._templates[name] for name in sorted(outers)]
        if not found or any(template != found[0] for template in found):
            return None
        declared = [self._declared.get(name[1:].strip('"')) if name.startswith("@") else None for name in others]
        is_template = all(other is not None and _is_made_by(other, found[0]) for other in declared)
        return found[0] if is_template else None

    def outer_of(self, value: str) -> str | None:
        """Return the map of maps that a value comes from, if not from somewhere else; None if there are several."""
        outers, _others = self._origins(value)
        return next(iter(outers)) if len(outers) == 1 else None

    def _origins(self, value: str) -> tuple[set[str], set[str]]:
        """Return where a pointer can come from: outer maps that it was looked up in, and other values."""
        outers: set[str] = set()
        others: set[str] = set()
        seen: set[str] = set()
        work = [value]
        while work:
            name = work.pop()
            if name in seen or name == "null":
                continue
            seen.add(name)
            if name in self._sources:
                work += self._sources[name]
            elif name in self._outers:
                outers.add(self._outers[name])
            else:
                others.add(name)
        return outers, others


def _is_made_by(definition: MapDefinition, template: MapDefinition) -> bool:
    """Whether a map could be in an outer map of this template.

    Source: kernel/bpf/map_in_map.c, bpf_map_meta_equal
    """
    shapes = [(one.type, one.key_size, one.value_size, one.flags) for one in (definition, template)]
    sizes_fit = not has_constant_size(template) or definition.max_entries == template.max_entries
    return shapes[0] == shapes[1] and sizes_fit


def with_inner_map(forwarder: str, number: int, template: MapDefinition | None, num_cpus: str) -> str:
    """Let a forwarder pass on a definition with addresses, in the place of a map that may be an inner one."""
    head, _newline, body = forwarder.partition("\n")
    made = _prologue(template, num_cpus, number)
    return "\n".join((head, *made, re.sub(rf"\bptr %a{number}\b", "ptr %here", body)))


def _prologue(template: MapDefinition | None, num_cpus: str, number: int) -> list[str]:
    """Return the lines that make the definition, %here.

    :param template: None: whatever it is, and the argument itself if it is a declared map
    :param num_cpus: an operand of 64 bits
    :param number: of the argument
    """
    lines = ["  %space = alloca [48 x i8], align 8"]
    if template is None:
        return [*lines, f"  %here = call ptr @uxdp_map_here(ptr %a{number}, ptr %space)"]
    lines += [
        f"  call void @uxdp_inner_here(ptr %a{number}, ptr %space)",
        "  %here = getelementptr i8, ptr %space, i64 0",
    ]
    # struct uxdp_map
    values = {0: MAP_TYPES.index(template.type), 4: template.key_size, 8: template.value_size, 16: template.flags}
    if has_constant_size(template):
        values[12] = template.max_entries
    for offset, value in values.items():
        lines += [
            f"  %field.{offset} = getelementptr i8, ptr %space, i64 {offset}",
            f"  store i32 {value}, ptr %field.{offset}, align 4",
        ]
    return [
        *lines,
        "  %field.24 = getelementptr i8, ptr %space, i64 24",
        f"  store i64 {num_cpus}, ptr %field.24, align 8",
    ]
