"""Turn calls of BPF helpers in IR into calls of native functions.

A helper call is a call of the constant address N: ``call i64 inttoptr (i64 2 to ptr)(ptr @map, …)``. The helper's
native implementation is a C function ``uxdp_helper_NAME`` whose parameters are u64 or pointers. Sources declare helpers
with their own types (int, long, pointers to anything), so every distinct way to call gets a small forwarder that
converts as BPF's registers would: integers are zero-extended to 64 bits, results truncated. Forwarders inline away.

A tail call does not return if it succeeds. So it becomes a branch: look the target up; if there is one, call it and
return what it returns; else go on behind the call with the error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from uxdp_bundle.helpers import helper_name
from uxdp_bundle.manifest import MapDefinition

from . import inner_maps
from .forwarders import SIGNATURE, converted, declaration, forwarder, operands_of
from .ir_text import Function, Module, closing, result_of, split_arguments
from .unsupported_helpers import reason_of

PREFIX: Final = "uxdp_helper_"
TAIL_CALL: Final = "bpf_tail_call"
_CALL: Final = re.compile(
    r"^(?P<lead>.*?)(?:(?:tail|musttail|notail) )?call (?P<attributes>(?:[a-z_]+(?:\([^)]*\))? )*?)"
    r"(?P<type>void|ptr|i\d+) (?:\([^()]*\) )?inttoptr \(i64 (?P<helper>\d+) to ptr\)\("
)
# What is left of a call of an address would run into nowhere.
_LEFT: Final = re.compile(r"call .*\binttoptr \(i64 (?P<helper>\d+) to ptr\)\(")
# Which argument of a helper is a callback, and the type by which native code calls it.
_CALLBACKS: Final = {
    "bpf_loop": (1, "i64 (i64, ptr)"),
    "bpf_for_each_map_elem": (1, "i64 (ptr, ptr, ptr, ptr)"),
    "bpf_user_ringbuf_drain": (1, "i64 (ptr, ptr)"),
}
# What the verifier makes of a bpf_loop with one callback and without flags: a loop in its place, which fails otherwise.
_LOOP: Final = "bpf_loop"
_LOOP_IN_PLACE: Final = "uxdp_loop_in_place"


class UnsupportedCallError(Exception):
    """A call that has no native implementation; ``function`` says where, ``name`` what."""

    def __init__(self, name: str, reason: str, function: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.function = function


@dataclass(slots=True)
class _Forwarders:
    """The forwarders made so far, by (native function, result type, argument types, what is known of an inner map)."""

    native: Mapping[str, str]
    nested: "NestedMaps"
    texts: dict[tuple[str, str, tuple[str, ...], MapDefinition | bool | None], tuple[str, str]] = field(
        default_factory=dict
    )

    def name_for(self, helper: str, result: str, operands: list[str], where: str, inner: inner_maps.InnerMaps) -> str:
        """Return the forwarder for a call of a helper with such operands.

        :param inner: what the function's pointers to maps are
        """
        arguments = tuple(operand.split(" ", 1)[0] for operand in operands)
        target = PREFIX + helper.removeprefix("bpf_")
        if helper == _LOOP and operands[1].startswith("ptr @") and operands[3] == "i64 0":
            target = _LOOP_IN_PLACE
        table = self._table(helper, operands)
        template = None if table is None else inner.template_of(operands[table].removeprefix("ptr "))
        key = (target, result, arguments, table is not None and template)
        if key not in self.texts:
            signature = self.native.get(target)
            if signature is None:
                raise UnsupportedCallError(helper, reason_of(helper), where)
            name = f"uxdp.call.{helper.removeprefix('bpf_')}.{len(self.texts)}"
            text = forwarder(name, target, signature, result, arguments)
            if table is not None:
                text = inner_maps.with_inner_map(text, table, template, self.nested.num_cpus)
            self.texts[key] = (name, text)
        return self.texts[key][0]

    def _table(self, helper: str, operands: list[str]) -> int | None:
        """Return which operand may be an inner map."""
        table = inner_maps.MAP_OPERANDS.get(helper) if self.nested.templates else None
        return None if table is None or operands[table].startswith("ptr @") else table


@dataclass(frozen=True, slots=True)
class NestedMaps:
    """What is known of maps of maps: templates by the outer map's name in the module, the declared maps by theirs, and
    the number of workers.
    """

    templates: Mapping[str, MapDefinition] = field(default_factory=dict)
    declared: Mapping[str, MapDefinition] = field(default_factory=dict)
    num_cpus: str = "0"


@dataclass(slots=True)
class _Adapters:
    """Functions with the type that native code calls callbacks by, around the program's own.

    A call by another type than a function's cannot be inlined, and LLVM may take it for undefined.
    """

    functions: Mapping[str, Function]
    texts: dict[str, str] = field(default_factory=dict)

    def adapted(self, operand: str, wanted: str) -> str:
        """Return the operand that stands for a callback: an adapter's if it names a function."""
        name = operand.removeprefix("ptr @")
        function = self.functions.get(name)
        if name == operand or function is None:
            return operand
        adapter = f"uxdp.callback.{name.strip(chr(34))}"
        if adapter not in self.texts:
            self.texts[adapter] = _adapter(adapter, function, wanted)
        return f'ptr @"{adapter}"'


def _adapter(adapter: str, function: Function, wanted: str) -> str:
    match = SIGNATURE.match(wanted)
    assert match is not None  # noqa: S101  # a constant of this module
    given = split_arguments(match["parameters"])
    lines: list[str] = []
    passed: list[str] = []
    for number, kind in enumerate(function.parameter_types):
        value, code = converted(f"%a{number}", given[number], kind)
        lines += code
        passed.append(f"{kind} {value}")
    lines.append(f"  %r = call {function.result_type} @{function.name}({', '.join(passed)})")
    value, code = converted("%r", function.result_type, match["result"])
    lines += [*code, f"  ret {match['result']} {value}"]
    heads = ", ".join(f"{kind} %a{number}" for number, kind in enumerate(given))
    return f'define internal {match["result"]} @"{adapter}"({heads}) alwaysinline {{\n' + "\n".join(lines) + "\n}"


def rewrite_calls(
    module: Module, native: Mapping[str, str], entries: list[str], nested: NestedMaps = NestedMaps()
) -> frozenset[str]:
    """Replace every helper call in ``module``.

    :param native: the native functions' types by name, such as ``{"uxdp_helper_redirect": "i64 (i64, i64)"}``
    :param entries: the programs of the object in the order of their numbers, which tail calls lead to
    :param nested: the object's maps of maps
    :return: the native functions that are called now
    :raises UnsupportedCallError: a helper without native implementation, or a tail call that cannot be expressed
    """
    forwarders = _Forwarders(native, nested)
    adapters = _Adapters({function.name: function for function in module.functions})
    tail_calls = 0
    for function in module.functions:
        lines: list[str] = []
        inner = inner_maps.InnerMaps(function, nested.templates, nested.declared)
        block = ""
        renamed: dict[str, str] = {}
        for line in function.lines:
            label = re.match(r'^(?P<name>"[^"]*"|[-\w$.]+):', line)
            if label is not None:
                block = f"%{label['name']}"
            match = _CALL.match(line)
            if match is None:
                if left := _LEFT.search(line):
                    raise UnsupportedCallError(
                        helper_name(int(left["helper"])), f"called as {line.strip()}", function.name
                    )
                lines.append(line)
                continue
            start = match.end() - 1
            end = closing(line, start)
            operands = operands_of(line[start + 1 : end])
            helper = helper_name(int(match["helper"]))
            if helper == TAIL_CALL:
                lines += _tail_call(function, line, operands, tail_calls)
                renamed[block] = block = f'%"uxdp.tail.next.{tail_calls}"'
                tail_calls += 1
                continue
            if helper in _CALLBACKS:
                position, callback_type = _CALLBACKS[helper]
                operands[position] = adapters.adapted(operands[position], callback_type)
            name = forwarders.name_for(helper, match["type"], operands, function.name, inner)
            lines.append(f'{match["lead"]}call {match["type"]} @"{name}"({", ".join(operands)})')
        function.lines = [_renamed_edges(line, renamed) for line in lines] if renamed else lines
    module.items += [text for _name, text in forwarders.texts.values()]
    module.items += adapters.texts.values()
    called = {key[0] for key in forwarders.texts}
    if any(key[3] is not False for key in forwarders.texts):
        called |= {"uxdp_map_here", "uxdp_inner_here"}
    if tail_calls:
        called.add("uxdp_tail_target")
        module.items.append(_dispatcher(entries))
    module.items += [declaration(target, native) for target in sorted(called)]
    return frozenset(called)


def _renamed_edges(line: str, renamed: dict[str, str]) -> str:
    """Let phis name the block in which an edge now begins; chains end at the last part of a split block."""
    if " = phi " not in line:
        return line

    def last(match: re.Match[str]) -> str:
        label = match[1]
        while label in renamed:
            label = renamed[label]
        return f", {label} ]"

    return re.sub(r', (%"[^"]*"|%[-\w$.]+) \]', last, line)


def _tail_call(function: Function, line: str, operands: list[str], number: int) -> list[str]:
    """Return the lines that stand for one tail call; the block goes on under a new label."""
    result = function.result_type
    if result not in ("void", "i32", "i64"):
        raise UnsupportedCallError(TAIL_CALL, f"in a function that returns {result}", function.name)
    defined = result_of(line)
    target, verdict, taken = (f'%"uxdp.tail.{part}.{number}"' for part in ("target", "verdict", "taken"))
    context, table, index = operands
    lines = []
    if not index.startswith("i64 "):
        wide = f'%"uxdp.tail.index.{number}"'
        lines.append(f"  {wide} = zext {index} to i64")
        index = f"i64 {wide}"
    lines += [
        f"  {target} = call i64 @uxdp_tail_target({context}, {table}, {index})",
        f"  {taken} = icmp sge i64 {target}, 0",
        f'  br i1 {taken}, label %"uxdp.tail.call.{number}", label %"uxdp.tail.next.{number}"',
        f'"uxdp.tail.call.{number}":',
        f"  {verdict} = call i32 @uxdp.tail.dispatch({context}, i64 {target})",
    ]
    if result == "void":
        lines.append("  ret void")
    elif result == "i32":
        lines.append(f"  ret i32 {verdict}")
    else:
        lines += [f'  %"uxdp.tail.wide.{number}" = zext i32 {verdict} to i64', f'  ret i64 %"uxdp.tail.wide.{number}"']
    lines.append(f'"uxdp.tail.next.{number}":')
    if defined is not None:
        kind = line.partition("call ")[2].partition(" ")[0]
        lines.append(
            f"  {defined[0]} = {'trunc' if kind == 'i32' else 'add'} i64 {target}"
            + (" to i32" if kind == "i32" else ", 0")
        )
    return lines


def _dispatcher(entries: list[str]) -> str:
    """Return the function that runs the program of a number."""
    cases = "\n".join(f"    i64 {number}, label %p{number}" for number in range(len(entries)))
    blocks = "\n".join(
        f"p{number}:\n  %r{number} = call i32 @{name}(ptr %context)\n  ret i32 %r{number}"
        for number, name in enumerate(entries)
    )
    return (
        "define internal i32 @uxdp.tail.dispatch(ptr %context, i64 %number) noinline {\n"
        f"  switch i64 %number, label %none [\n{cases}\n  ]\n{blocks}\nnone:\n  ret i32 0\n}}"
    )
