"""Make of a program the part that finds out what it will look up, so that a burst can fetch that before.

The slice is the program's entry up to the first lookup in a large map, without side effects: it reads the frame, its
own stack and maps, and writes nothing but its stack. It is cut where the program would do more: store to the frame or
to a map, move the frame, call a subprogram. Lookups in small maps are made, for the next key may depend on them; at a
lookup in a large one, and at one of a route, of which a worker keeps answers, the slice notes where it begins and
ends. What such a function returns need not be right: time,
chance and checksums are 0, since the kernel's verifier has judged the program for any value of them.

So the slice is safe for the reason that the program is: it is a prefix of a run of the program, with other values of
what the verifier takes as unknown. It may be wrong about the key, if an earlier frame of the same burst changes a map;
then the fetched memory is of no use, and that is all.

The text that this works on is the compiler's own, after all other rewriting: helper calls are ``@"uxdp.call.NAME.N"``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from uxdp_bundle.manifest import MapDefinition

from . import inner_maps
from .definitions import NativeMap, num_cpus_operand
from .ir_text import Function, Module, result_of, split_arguments

# A store from this size on has lookups that are worth a prefetch: half of a second-level cache, see maps/prefetch.h.
LARGE_BYTES: Final = 256 << 10
# What a lookup in one element of a map touches besides key and value: the slot of a bucket, links.
_OVERHEAD_BYTES: Final = 64
_ARRAYS: Final = frozenset({"array", "percpu_array"})
_PEEKED: Final = _ARRAYS | {"hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "lpm_trie"}
# What is looked ahead in for bpf_fib_lookup: no map's name.
ROUTES: Final = "(routes)"
# Helpers without side effects whose result the verifier takes for any number.
_NUMBERS: Final = frozenset(
    {
        *("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns", "jiffies64"),
        *("get_prandom_u32", "get_numa_node_id", "csum_diff", "xdp_get_buff_len"),
    }
)
# What leads to a CPU's own maps: the slice needs the right number, and has it for nothing.
_CPU: Final = "get_smp_processor_id"
# Instructions that compute a value from values and read no memory.
_PURE: Final = frozenset(
    {
        *("add", "sub", "mul", "udiv", "sdiv", "urem", "srem", "shl", "lshr", "ashr", "and", "or", "xor", "icmp"),
        *("zext", "sext", "trunc", "ptrtoint", "inttoptr", "bitcast", "freeze", "select", "phi", "getelementptr"),
        *("extractvalue", "insertvalue", "extractelement", "insertelement", "shufflevector", "alloca"),
    }
)
_CONTROL: Final = frozenset({"br", "switch", "]", "unreachable"})
_CASE: Final = re.compile(r"i\d+ [-\w]+, label %")  # a line of a switch; i1's are true and false
_INTRINSICS: Final = re.compile(
    r"@llvm\.(?:bswap|bitreverse|ctpop|ctlz|cttz|fshl|fshr|umin|umax|smin|smax|abs|ucmp|scmp|[us](?:add|sub|mul)\.\w+)\."
)
_FILLS: Final = re.compile(r"@llvm\.(?:memcpy|memmove|memset)\.[\w.]+\((?P<arguments>.*)\)")
_LIFETIME: Final = re.compile(r"@llvm\.lifetime\.(?:start|end)")
_CALL: Final = re.compile(
    r"(?:(?:tail|musttail|notail) )?call (?:\w+ )*?(?P<type>void|ptr|i\d+) "
    r'@"?uxdp\.call\.(?P<helper>\w+)\.\d+"?\((?P<arguments>.*)\)'
)
_STORE: Final = re.compile(r"store (?!atomic)(?:volatile )?.* ptr (?P<to>[%@]\S+?)(?:,.*)?$")
_LOAD: Final = re.compile(r"load (?!atomic)(?:volatile )?(?P<rest>.*)$")
_BASE: Final = re.compile(r"getelementptr (?:(?:inbounds|nuw|nusw) )*.*?, ptr (?P<base>[%@]\S+?)(?:,|$)")
_LABEL: Final = re.compile(r'^(?P<name>"[^"]*"|[-\w$.]+):')
_TARGETS: Final = re.compile(r'label (%"[^"]*"|%[-\w$.]+)')
_EDGE: Final = re.compile(r', (?P<block>%"[^"]*"|%[-\w$.]+) \]$')
_CUT: Final = "  ret i32 0"


@dataclass(slots=True)
class _Block:
    name: str
    lines: list[str] = field(default_factory=list)


def add_lookahead(module: Module, entry: str, maps: Mapping[str, NativeMap]) -> tuple[str | int, ...]:
    """Add ``uxdp_ahead``, ``uxdp_follow`` and what says whether to use them (native/abi.h) to a rewritten module.

    :param entry: the program that frames enter
    :param maps: the maps by their names in the module
    :return: what is looked ahead in: maps by name, or by number if it is inner ones, ROUTES; empty: nothing was added
    """
    function = next(function for function in module.functions if function.name == entry)
    slicer = _Slicer(maps, _stack_pointers(function), _inner_maps(function, maps))
    blocks = [slicer.sliced(block) for block in _blocks(function)]
    if not slicer.lookups:
        return ()
    module.items += [_ahead(function, _connected(blocks)), _follow(slicer.lookups), _pays(slicer.lookups, maps)]
    module.items.append("define zeroext i1 @uxdp_looks_ahead() alwaysinline {\n  ret i1 true\n}")
    module.items += [text for number in range(len(slicer.templates)) for text in slicer.functions_for_inner(number)]
    module.items += [
        "declare ptr @uxdp_peek(ptr, ptr)",
        "declare i64 @uxdp_prefetch(ptr, ptr)",
        "declare void @uxdp_prefetch_element(ptr, i64)",
        "declare zeroext i1 @uxdp_outgrows_cache(ptr)",
        "declare i64 @uxdp_prefetch_fib_lookup(ptr, i64, i64)",
        "declare void @uxdp_prefetch_route(i64)",
        "declare zeroext i1 @uxdp_routes_outgrow_cache()",
    ]
    return tuple(slicer.lookups)


def _inner_maps(function: Function, maps: Mapping[str, NativeMap]) -> inner_maps.InnerMaps:
    definitions = {name: native.definition for name, native in maps.items()}
    templates = {name: one.inner for name, one in definitions.items() if one.inner is not None}
    return inner_maps.InnerMaps(function, templates, definitions)


class _Slicer:
    """``lookups`` are the maps that are looked ahead in: names, and for inner maps numbers of their ``templates``."""

    def __init__(self, maps: Mapping[str, NativeMap], stack: frozenset[str], inner: inner_maps.InnerMaps) -> None:
        self._maps = maps
        self._stack = stack
        self._inner = inner
        self.lookups: list[str | int] = []
        self.templates: list[MapDefinition] = []
        self.outers: list[str | None] = []
        self.asks_for_cpu = False

    def sliced(self, block: _Block) -> _Block:
        """Return what of a block the slice executes: all of it, or up to a cut."""
        kept = _Block(block.name)
        for line in block.lines:
            replaced = self._replaced(line)
            if replaced is None:
                kept.lines.append(_CUT)
                return kept
            kept.lines += replaced
            if replaced and replaced[-1].startswith("  ret "):
                return kept
        return kept

    def _replaced(self, line: str) -> list[str] | None:
        """Return the lines that stand for one, None where the slice ends."""
        name, rest = result_of(line) or ("", line.strip())
        operation = rest.partition(" ")[0]
        if operation in _PURE or operation in _CONTROL or _CASE.match(rest):
            return [line]
        if operation == "ret":
            return [_CUT]
        if match := _LOAD.match(rest):
            return [f"  {name} = load {match['rest']}"]
        if match := _STORE.match(rest):
            return [line] if match["to"] in self._stack else None
        if match := _CALL.match(rest):
            return self._helper(name, match)
        if match := _FILLS.search(rest):
            target = split_arguments(match["arguments"])[0].rsplit(" ", 1)[-1]
            return [line] if target in self._stack else None
        if _LIFETIME.search(rest):
            return []
        return [line] if "call " in rest and _INTRINSICS.search(rest) else None

    def functions_for_inner(self, number: int) -> tuple[str, ...]:
        """Return what prefetches in an inner map of a template, whose definition is made where it is used."""
        cpus = num_cpus_operand(next(iter(self._maps.values())).num_cpus)
        prefetch = (
            f'define internal i64 @"uxdp.inner.prefetch.{number}"(ptr %a0, ptr %a1) alwaysinline {{\n'
            "  %r = call i64 @uxdp_prefetch(ptr %a0, ptr %a1)\n  ret i64 %r\n}"
        )
        element = (
            f'define internal void @"uxdp.inner.prefetch_element.{number}"(ptr %a0, i64 %a1) alwaysinline {{\n'
            "  call void @uxdp_prefetch_element(ptr %a0, i64 %a1)\n  ret void\n}"
        )
        outgrows = (
            f'define internal zeroext i1 @"uxdp.inner.outgrows.{number}"(ptr %a0) alwaysinline {{\n'
            "  %r = call zeroext i1 @uxdp_outgrows_cache(ptr %a0)\n  ret i1 %r\n}"
        )
        template = self.templates[number]
        made = (inner_maps.with_inner_map(text, 0, template, cpus) for text in (prefetch, element, outgrows))
        return (*made, self._pays_for_inner(number))

    def _pays_for_inner(self, number: int) -> str:
        """Return the function that tells whether looking ahead in inner maps pays.

        Where each CPU has a map of its own, the worker's tells. Else nobody knows which maps there are.
        """
        outer = self.outers[number]
        head = f'define internal zeroext i1 @"uxdp.inner.pays.{number}"() alwaysinline {{\n'
        if not self.asks_for_cpu or outer is None or self._maps[outer].definition.type != "array_of_maps":
            return head + "  ret i1 true\n}"
        return head + (
            "  %key = alloca i64, align 8\n"
            "  %cpu = call i64 @uxdp_helper_get_smp_processor_id()\n"
            "  store i64 %cpu, ptr %key, align 8\n"
            f'  %inner = call ptr @uxdp_peek(ptr @"{outer}", ptr %key)\n'
            "  %none = icmp eq ptr %inner, null\n"
            "  br i1 %none, label %unknown, label %known\n"
            "unknown:\n  ret i1 true\n"
            f'known:\n  %r = call zeroext i1 @"uxdp.inner.outgrows.{number}"(ptr %inner)\n  ret i1 %r\n}}'
        )

    def _helper(self, name: str, match: re.Match[str]) -> list[str] | None:
        if match["helper"] in _NUMBERS and re.fullmatch(r"i\d+", match["type"]) and name:
            return [f"  {name} = add {match['type']} 0, 0"]
        if match["helper"] == _CPU and name:
            self.asks_for_cpu = True
            return [f"  {name} = {match[0]}"]
        if match["helper"] == "fib_lookup" and name:
            return self._fib_lookup(name, split_arguments(match["arguments"]))
        if match["helper"] != "map_lookup_elem" or match["type"] != "ptr" or not name:
            return None
        table, key = split_arguments(match["arguments"])
        native = self._maps.get(table.removeprefix("ptr @").strip('"'))
        if native is None:
            template = self._inner.template_of(table.removeprefix("ptr "))
            if template is None or template.type not in _PEEKED or not _is_large(template):
                return None
            return self._inner_lookup(name, table, key, template)
        if native.definition.type not in _PEEKED | inner_maps.OUTER_TYPES:
            return None
        if not _is_large(native.definition) or native.definition.inner is not None:
            return [f"  {name} = call ptr @uxdp_peek({table}, {key})"]
        place = _place(name)
        return [
            f"  {place} = call i64 @uxdp_prefetch({table}, {key})",
            *self._looked_up(native.definition.name, place),
        ]

    def _fib_lookup(self, name: str, arguments: list[str]) -> list[str] | None:
        _context, params, *numbers = arguments
        place, lines, operands = _place(name), [], []
        for at, number in enumerate(numbers):
            kind, value = number.split()[0], number.rsplit(" ", 1)[-1]
            if kind not in ("i32", "i64"):
                return None
            # As a helper gets it: the upper half does not count for either argument.
            lines.append(
                f'  {place[:-1]}.{at}" = {f"zext i32 {value} to i64" if kind == "i32" else f"add i64 {value}, 0"}'
            )
            operands.append(f'i64 {place[:-1]}.{at}"')
        call = f"  {place} = call i64 @uxdp_prefetch_fib_lookup({', '.join((params, *operands))})"
        return [*lines, call, *self._looked_up(ROUTES, place)]

    def _inner_lookup(self, name: str, table: str, key: str, template: MapDefinition) -> list[str]:
        if template not in self.templates:
            self.templates.append(template)
            self.outers.append(self._inner.outer_of(table.removeprefix("ptr ")))
        number = self.templates.index(template)
        place = _place(name)
        return [
            f'  {place} = call i64 @"uxdp.inner.prefetch.{number}"({table}, {key})',
            f"  store {table}, ptr %uxdp.ahead.map",
            *self._looked_up(number, place),
        ]

    def _looked_up(self, lookup: str | int, place: str) -> list[str]:
        """Return the lines that end the slice at a lookup."""
        if lookup not in self.lookups:
            self.lookups.append(lookup)
        return [f"  store i64 {place}, ptr %uxdp.ahead", f"  ret i32 {self.lookups.index(lookup) + 1}"]


def _place(name: str) -> str:
    return f'%"uxdp.place.{len(name)}.{name[1:].strip(chr(34))}"'


def _is_large(definition: MapDefinition) -> bool:
    overhead = 0 if definition.type in _ARRAYS else _OVERHEAD_BYTES + definition.key_size
    return definition.max_entries * (definition.value_size + overhead) >= LARGE_BYTES


def _blocks(function: Function) -> list[_Block]:
    blocks: list[_Block] = []
    for line in function.lines:
        label = _LABEL.match(line)
        if label is not None:
            blocks.append(_Block(f"%{label['name']}"))
        elif line.strip() and not line.lstrip().startswith(";"):
            blocks[-1].lines.append(line)
    return blocks


def _stack_pointers(function: Function) -> frozenset[str]:
    """Return the pointers that can point to nothing but the function's own stack."""
    stack: set[str] = set()
    grown = True
    while grown:
        grown = False
        for line in function.lines:
            name, rest = result_of(line) or ("", "")
            if not name or name in stack:
                continue
            base = _BASE.match(rest)
            if rest.startswith("alloca ") or (base is not None and base["base"] in stack):
                stack.add(name)
                grown = True
    return frozenset(stack)


def _connected(blocks: list[_Block]) -> list[_Block]:
    """Leave out blocks that are not reached any more, and the edges from them in phis."""
    by_name = {block.name: block for block in blocks}
    reached: dict[str, set[str]] = {}  # block -> its predecessors
    work = [blocks[0].name]
    reached[blocks[0].name] = set()
    while work:
        name = work.pop()
        for target in {target for line in by_name[name].lines for target in _TARGETS.findall(line)}:
            if target not in reached:
                reached[target] = set()
                work.append(target)
            reached[target].add(name)
    connected = []
    for block in blocks:
        if block.name in reached:
            lines = [_with_edges(line, reached[block.name]) for line in block.lines]
            connected.append(_Block(block.name, lines))
    return connected


def _with_edges(line: str, predecessors: set[str]) -> str:
    if " = phi " not in line:
        return line
    head, bracket, rest = line.partition("[ ")
    edges = split_arguments(bracket + rest)
    return head + ", ".join(edge for edge in edges if (match := _EDGE.search(edge)) and match[1] in predecessors)


def _ahead(function: Function, blocks: list[_Block]) -> str:
    # A program need not take the context: SEC("xdp") int program(void).
    parameter = function.parameters[0] if function.parameters else "%uxdp.context"
    blocks[0].lines[:0] = ["  store i64 0, ptr %uxdp.ahead", "  store ptr null, ptr %uxdp.ahead.map"]
    body = "\n".join("\n".join((f"{block.name[1:]}:", *block.lines)) for block in blocks)
    parameters = f"ptr {parameter}, ptr %uxdp.ahead, ptr %uxdp.ahead.map"
    return f"define i32 @uxdp_ahead({parameters}) alwaysinline null_pointer_is_valid {{\n{body}\n}}"


def _follow(lookups: list[str | int]) -> str:
    cases = "\n".join(f"    i32 {number}, label %l{number}" for number in range(1, len(lookups) + 1))
    blocks = "\n".join(
        f"l{number}:\n  call void {_element_of(lookup)}i64 %place)\n  ret void"
        for number, lookup in enumerate(lookups, start=1)
    )
    return (
        "define void @uxdp_follow(i32 %lookup, i64 %place, ptr %map) alwaysinline {\n"
        f"  switch i32 %lookup, label %none [\n{cases}\n  ]\n{blocks}\nnone:\n  ret void\n}}"
    )


def _element_of(lookup: str | int) -> str:
    """Return the beginning of the call that goes one step further."""
    if isinstance(lookup, int):
        return f'@"uxdp.inner.prefetch_element.{lookup}"(ptr %map, '
    if lookup == ROUTES:
        return "@uxdp_prefetch_route("
    return f'@uxdp_prefetch_element(ptr @"{lookup}", '


def _pays(lookups: list[str | int], maps: Mapping[str, NativeMap]) -> str:
    # Of an array nobody knows how much is in use; it decides only where there is nothing else to go by.
    arrays = {name for name, native in maps.items() if native.definition.type in _ARRAYS}
    counted = [name for name in lookups if name not in arrays]
    lines = ["define zeroext i1 @uxdp_ahead_pays() alwaysinline {", "  %o0 = add i1 0, 0"]
    for number, name in enumerate(counted or lookups, start=1):
        asked = f'uxdp_outgrows_cache(ptr @"{name}")'
        if isinstance(name, int):
            asked = f'"uxdp.inner.pays.{name}"()'
        elif name == ROUTES:
            asked = "uxdp_routes_outgrow_cache()"
        lines.append(f"  %g{number} = call zeroext i1 @{asked}")
        lines.append(f"  %o{number} = or i1 %o{number - 1}, %g{number}")
    return "\n".join((*lines, f"  ret i1 %o{len(counted or lookups)}", "}"))
