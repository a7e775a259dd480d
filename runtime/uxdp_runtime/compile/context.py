"""Widen the accesses to xdp_md in IR: from the kernel's 32-bit fields to native 64-bit pointers.

The IR reads ``data`` as an i32, extends it to i64 and makes a pointer of that. Natively the field is 64 bits wide at
another offset. So each load through a pointer to the context becomes a load of 64 bits, and every zext of it becomes
that value itself; whoever uses the 32 bits gets them by a trunc, which is what the kernel's own 32-bit arithmetic on
such a register sees.

Which loads these are is found by following the context pointer: from the programs' first parameter through moves,
phis, calls and callbacks, and through memory on the stack at constant offsets. The analysis ignores the order of
statements, so it may only be trusted where a pointer is a context pointer and nothing else; a mixture is refused, as is
everything that the verifier's rules for PTR_TO_CTX leave no room for.

References: include/uapi/linux/bpf.h, struct xdp_md; uxdp_bundle.shim (the native layout)
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from uxdp_bundle.context_access import XDP_MD_FIELDS
from uxdp_bundle.shim import NATIVE_XDP_MD

from .ir_text import Function, Module, closing, result_of, split_arguments
from .ir_types import TypeLayouts
from .wide_values import COPY, INCOMING, PASSTHROUGH, PHI, SELECT, ZEXT, propagate, suffixed

_LOAD: Final = re.compile(r"load (?P<volatile>volatile )?(?P<type>\w+), ptr (?P<pointer>[%@]\S+?)(?P<rest>,.*)?$")
_STORE: Final = re.compile(r"store (?:volatile )?ptr (?P<value>[%@]\S+), ptr (?P<pointer>[%@]\S+?)(?:,.*)?$")
_GEP: Final = re.compile(
    r"getelementptr (?:(?:inbounds|nuw|nusw) )*(?P<type>.+?), ptr (?P<pointer>[%@]\S+?), (?P<indices>.+)$"
)
_INTTOPTR: Final = re.compile(r"inttoptr i64 (?P<value>%\S+) to ptr$")
_INTEGER: Final = re.compile(r"i(?:32|64) (?P<value>-?\d+|%\S+)$")
_NUMBER: Final = re.compile(r"add i64 (?P<value>-?\d+), 0$")  # how definitions.substitute_values writes a number
# barrier_var() and its like: assembly without instructions that gives back what it is given.
_BARRIER: Final = re.compile(
    r'(?:tail )?call ptr asm (?:sideeffect )?"", "[^"]*"\(ptr (?:\S+ )*?(?P<value>[%@][^\s,)]+)\)'
)
_OPERAND: Final = re.compile(r"%(?:\"[^\"]*\"|[-\w$.]+)")
_HARMLESS: Final = ("icmp ", "ret ptr ")
_FIELD_BYTES: Final = 4
_POINTER_FIELDS: Final = tuple(name for name, (_offset, size) in NATIVE_XDP_MD.items() if size == 8)


@dataclass(frozen=True, slots=True)
class Context:
    """A pointer to xdp_md, ``offset`` bytes from its start in the kernel's layout."""

    offset: int


@dataclass(frozen=True, slots=True)
class Stack:
    """A pointer ``offset`` bytes into the alloca ``name`` of a function; None: somewhere in it."""

    function: str
    name: str
    offset: int | None


@dataclass(frozen=True, slots=True)
class Code:
    """The address of a function."""

    name: str


OTHER: Final = "other"
Value = Context | Stack | Code | str


class ContextError(Exception):
    """The context is used in a way that cannot be widened; ``function`` and ``line`` say where in the IR."""

    def __init__(self, message: str, function: str, line: str) -> None:
        super().__init__(message)
        self.function = function
        self.line = line


@dataclass(slots=True)
class _Facts:
    """What is known of all values: (function, name) -> possible pointers; memory by place."""

    layouts: TypeLayouts
    values: dict[tuple[str, str], set[Value]] = field(default_factory=dict)
    memory: dict[Stack, set[Value]] = field(default_factory=dict)
    constants: dict[tuple[str, str], int] = field(default_factory=dict)
    changed: bool = False

    def add(self, function: str, name: str, values: Iterable[Value]) -> None:
        known = self.values.setdefault((function, name), set())
        before = len(known)
        known.update(values)
        self.changed |= len(known) != before

    def put(self, place: Stack, values: Iterable[Value]) -> None:
        known = self.memory.setdefault(place, set())
        before = len(known)
        known.update(values)
        self.changed |= len(known) != before

    def at(self, place: Stack) -> set[Value]:
        """Return what may be found at a place of the stack."""
        found: set[Value] = set()
        for other, values in self.memory.items():
            same = (other.function, other.name) == (place.function, place.name)
            if same and (None in (place.offset, other.offset) or place.offset == other.offset):
                found |= values
        return found if place.offset is not None or not found else found | {OTHER}

    def of(self, function: str, name: str) -> set[Value]:
        if name.startswith("@"):
            return {Code(name[1:])}
        return self.values.get((function, name), set())


# Which helper hands which argument to which parameter of its callback: helper -> (callback, argument, parameter).
_CALLBACKS: Final = {"181": (1, 2, 1), "164": (1, 2, 3), "209": (1, 2, 1)}
# What reads memory by any address: of the context it would read the kernel's struct xdp_buff, of which there is none.
_READS_MEMORY: Final = re.compile(
    r"inttoptr \(i64 11[35] to ptr\)"  # bpf_probe_read_kernel, bpf_probe_read_kernel_str
    r"|@bpf_(?:iter_bits_new|probe_read_kernel_(?:str_)?dynptr|str(?:casecmp|chr|chrnul|cmp|cspn|len|nchr|nlen|nstr|rchr|spn|str))"
)
_CALL: Final = re.compile(
    r"(?:(?:tail|musttail|notail) )?call (?P<head>(?:[^@()]|\([^()]*\))*?)"
    r"(?P<callee>@[^\s(]+|%[^\s(]+|inttoptr \(i64 (?P<helper>\d+) to ptr\))\("
)


def widen_context(module: Module, entries: Iterable[str]) -> set[str]:
    """Rewrite every access to the context in ``module``; return the names of the fields that are read.

    :param entries: names of the XDP programs, whose first parameter is the context
    :raises ContextError: a use of the context that the kernel's rules do not explain
    """
    facts = _Facts(TypeLayouts(module))
    functions = {function.name: function for function in module.functions}
    for name in entries:
        function = functions[name]
        if function.parameters:
            facts.add(name, function.parameters[0], [Context(0)])
    while True:
        facts.changed = False
        for function in functions.values():
            for line in function.lines:
                _learn(facts, functions, function, line)
        if not facts.changed:
            break
    fields: set[str] = set()
    for function in functions.values():
        _check_uses(facts, function)
        fields |= _rewrite(facts, function)
        _check_pointers(function)
    return fields


def _learn(facts: _Facts, functions: dict[str, Function], function: Function, line: str) -> None:
    """Add what one instruction tells about pointers."""
    where = function.name
    defined = result_of(line)
    name, rest = defined if defined is not None else ("", line.strip())
    if match := _CALL.match(rest):
        _learn_call(facts, functions, where, name, rest, match)
    elif not name:
        if match := _STORE.match(rest):
            values = facts.of(where, match["value"])
            for target in facts.of(where, match["pointer"]):
                if isinstance(target, Stack):
                    facts.put(target, values or {OTHER})
    elif match := _NUMBER.match(rest):
        facts.constants[where, name] = int(match["value"])
    elif rest.startswith("alloca "):
        facts.add(where, name, [Stack(where, name, 0)])
    elif match := _LOAD.match(rest):
        if match["type"] == "ptr":
            loaded: set[Value] = set()
            for source in facts.of(where, match["pointer"]):
                loaded |= facts.at(source) if isinstance(source, Stack) else {OTHER}
            facts.add(where, name, loaded)
    elif match := _GEP.match(rest):
        offset = _gep_offset(facts, where, match)
        facts.add(where, name, (_moved(value, offset) for value in facts.of(where, match["pointer"])))
    elif (match := PHI.match(rest)) and match["type"] == "ptr":
        for incoming in INCOMING.finditer(match["incoming"]):
            facts.add(where, name, _operand(facts, where, incoming["value"]))
    elif (match := SELECT.match(rest)) and match["type"] == "ptr":
        for operand in (match["one"], match["other"]):
            facts.add(where, name, _operand(facts, where, operand))
    elif ((match := COPY.match(rest)) and match["type"] == "ptr") or (match := _BARRIER.match(rest)):
        facts.add(where, name, _operand(facts, where, match["value"]))


def _operand(facts: _Facts, where: str, operand: str) -> set[Value]:
    """Return what an operand may point to; null and undefined values point to nothing."""
    return set() if operand in ("null", "undef", "poison") else facts.of(where, operand)


def _moved(value: Value, offset: int | None) -> Value:
    if isinstance(value, Context):
        return Context(value.offset + offset) if offset is not None else OTHER
    if isinstance(value, Stack):
        moved = None if offset is None or value.offset is None else value.offset + offset
        return Stack(value.function, value.name, moved)
    return OTHER


def _gep_offset(facts: _Facts, where: str, match: re.Match[str]) -> int | None:
    """Return the byte offset of a getelementptr, if it is constant."""
    indices = [
        found["value"] if (found := _INTEGER.match(piece)) else None for piece in split_arguments(match["indices"])
    ]
    numbers = [
        facts.constants.get((where, index)) if index is not None and index.startswith("%") else _as_int(index)
        for index in indices
    ]
    known = [number for number in numbers if number is not None]
    return facts.layouts.offset(match["type"], known) if len(known) == len(numbers) else None


def _as_int(text: str | None) -> int | None:
    return int(text) if text is not None else None


def _learn_call(
    facts: _Facts, functions: dict[str, Function], where: str, name: str, rest: str, match: re.Match[str]
) -> None:
    """Hand arguments to parameters, and results back."""
    if passed := PASSTHROUGH.match(rest):
        operand = passed["argument"].rsplit(" ", 1)[-1]
        if name and passed["argument"].startswith("ptr"):
            facts.add(where, name, _operand(facts, where, operand))
        return
    start = match.end() - 1
    arguments = [piece.rsplit(" ", 1)[-1] for piece in split_arguments(rest[start + 1 : closing(rest, start)])]
    if match["callee"].startswith(("@llvm.memcpy.", "@llvm.memmove.")):
        _learn_copy(facts, where, arguments)
        return
    if match["helper"] in _CALLBACKS:
        callback, argument, parameter = _CALLBACKS[match["helper"]]
        for target in facts.of(where, arguments[callback]):
            if isinstance(target, Code) and target.name in functions:
                parameters = functions[target.name].parameters
                if parameter < len(parameters):
                    facts.add(target.name, parameters[parameter], _operand(facts, where, arguments[argument]))
    callee = match["callee"]
    if callee.startswith("@") and callee[1:] in functions:
        target_function = functions[callee[1:]]
        for parameter_name, operand in zip(target_function.parameters, arguments, strict=False):
            facts.add(target_function.name, parameter_name, _operand(facts, where, operand))
        if name:
            for line in target_function.lines:
                if line.startswith("  ret ptr "):
                    facts.add(where, name, _operand(facts, target_function.name, line.removeprefix("  ret ptr ")))
    elif name and " ptr " in f" {match['head']} ":
        facts.add(where, name, [OTHER])


def _learn_copy(facts: _Facts, where: str, arguments: list[str]) -> None:
    """Copy what is known of the stack: a structure that holds the context may be assigned as a whole."""
    length = int(arguments[2]) if arguments[2].isdecimal() else 1 << 20
    for source in facts.of(where, arguments[1]):
        for target in facts.of(where, arguments[0]):
            if not isinstance(source, Stack) or not isinstance(target, Stack):
                continue
            for place, values in list(facts.memory.items()):
                if (place.function, place.name) != (source.function, source.name):
                    continue
                if place.offset is None or source.offset is None or target.offset is None:
                    facts.put(Stack(target.function, target.name, None), values)
                elif 0 <= place.offset - source.offset < length:
                    moved = target.offset + place.offset - source.offset
                    facts.put(Stack(target.function, target.name, moved), values)


def _check_uses(facts: _Facts, function: Function) -> None:
    """Refuse what is done with the context and was not followed: from there on its accesses would not be known."""
    for line in function.lines:
        defined = result_of(line)
        rest = defined[1] if defined is not None else line.strip()
        operands = (name for name in _OPERAND.findall(rest) if facts.values.get((function.name, name)))
        used = [name for name in operands if any(isinstance(v, Context) for v in facts.of(function.name, name))]
        if used and not _is_followed(facts, function, rest, used):
            raise ContextError("the context is used in a way that cannot be followed", function.name, line)


def _is_followed(facts: _Facts, function: Function, rest: str, used: list[str]) -> bool:
    if match := _STORE.match(rest):
        targets = facts.of(function.name, match["pointer"])
        known = all(isinstance(target, Stack) and target.offset is not None for target in targets)
        return match["value"] not in used or (bool(targets) and known)
    if match := _CALL.match(rest):
        return not match["callee"].startswith("%") and not _READS_MEMORY.fullmatch(match["callee"])
    followed = (_LOAD, _GEP, PHI, SELECT, COPY, _BARRIER)
    return rest.startswith(_HARMLESS) or any(pattern.match(rest) for pattern in followed)


def _check_pointers(function: Function) -> None:
    """Refuse a pointer that is made of 32 bits: the analysis has then missed where they came from.

    The verifier lets a program dereference no pointer but those it got as such, and of 32 bits it gets only the
    context's.
    """
    origins: dict[str, str] = {}
    for line in function.lines:
        defined = result_of(line)
        if defined is not None and (match := ZEXT.match(defined[1])):
            origins[defined[0]] = match["value"]
        elif defined is not None and (match := _INTTOPTR.match(defined[1])) and match["value"] in origins:
            raise ContextError("a pointer made of 32 bits that are not known to be the context's", function.name, line)


def _rewrite(facts: _Facts, function: Function) -> set[str]:
    """Widen the loads of one function and what is made of their values."""
    wide: dict[str, str] = {}
    fields: set[str] = set()
    lines: list[str] = []
    for line in function.lines:
        defined = result_of(line)
        match = _LOAD.match(defined[1]) if defined is not None else None
        access = _access(facts, function, match, line) if match is not None else None
        if defined is None or match is None or access is None:
            lines.append(line)
            continue
        name = defined[0]
        kernel_offset, field_name = access
        fields.add(field_name)
        offset, _size = NATIVE_XDP_MD[field_name]
        pointer = match["pointer"]
        if offset != kernel_offset:
            moved = suffixed(name, "field")
            lines.append(f"  {moved} = getelementptr i8, ptr {pointer}, i64 {offset - kernel_offset}")
            pointer = moved
        if field_name in _POINTER_FIELDS:
            wide[name] = suffixed(name, "wide")
            lines.append(f"  {wide[name]} = load i64, ptr {pointer}, align 8")
            lines.append(f"  {name} = trunc i64 {wide[name]} to i32")
        else:
            lines.append(f"  {name} = load i32, ptr {pointer}, align 4")
    function.lines = lines
    propagate(function, wide)
    return fields


def _access(facts: _Facts, function: Function, match: re.Match[str], line: str) -> tuple[int, str] | None:
    """Return (offset in the kernel's layout, field) if a load reads the context, None if it cannot."""
    values = facts.of(function.name, match["pointer"])
    contexts = {value for value in values if isinstance(value, Context)}
    if not contexts:
        return None
    if len(values) != 1:
        raise ContextError("a load whose pointer may or may not be the context", function.name, line)
    (context,) = contexts
    index, rest = divmod(context.offset, _FIELD_BYTES)
    if match["type"] != "i32" or rest or not 0 <= index < len(XDP_MD_FIELDS):
        raise ContextError(f"a load of {match['type']} at offset {context.offset} of xdp_md", function.name, line)
    return context.offset, XDP_MD_FIELDS[index]
