"""Keep accesses to stack slots and constants inside of them.

The verifier knows no slots and no constants, but a frame of 512 bytes and one map per section of constants. So a
verified program may reach one slot by way of another, or a constant by way of its neighbour; natively these lie
elsewhere, and what is read or overwritten there would be something else. No C program may do so, and none that means
well does.

An access at a constant offset is judged here: outside, it becomes a trap, for compilers do leave such in code that
never runs. One at a variable offset is checked when it runs: outside, it goes to an address that faults everywhere.
Where the offset is masked, or compared before, LLVM finds that the check is always true.

What is followed are pointers within a function, made from one slot or constant. A pointer that may be into several, or
that a subprogram or helper got, is not checked.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from uxdp_bundle.ir_syntax import NAME, closing, end_of_type, split_arguments, type_bytes

from .ir_text import Function, Module
from .limits import named_types, slot_bytes

_V: Final = rf"[%@]{NAME}"
_GLOBAL: Final = re.compile(rf"^(?P<name>@{NAME}) = (?:[a-z_]+ )*constant (?P<rest>.*)$")
_SLOT: Final = re.compile(rf"^  (?P<name>%{NAME}) = alloca (?P<rest>.*)$")
_GEP: Final = re.compile(rf"^  (?P<name>%{NAME}) = getelementptr (?P<rest>.*)$")
_PHI: Final = re.compile(rf"^  (?P<name>%{NAME}) = phi ptr (?P<rest>.*)$")
_SELECT: Final = re.compile(rf"^  (?P<name>%{NAME}) = select i1 [^,]+, (?P<rest>ptr .*)$")
_COPY: Final = re.compile(rf"^  (?P<name>%{NAME}) = (?:freeze ptr|bitcast ptr) (?P<value>\S+)(?: to ptr)?$")
_LOAD: Final = re.compile(rf"^  %{NAME} = load (?:atomic )?(?:volatile )?")
_STORE: Final = re.compile(r"^  store (?:atomic )?(?:volatile )?")
_BLOCK: Final = re.compile(r"^  call void @llvm\.mem(?:cpy|move|set)\.[^(]*\((?P<arguments>.*)\)")
_POINTER: Final = re.compile(rf"ptr (?P<value>{_V})(?=[,)]|$)")
_EXPRESSION: Final = re.compile(r"ptr getelementptr (?P<open>\()[^()]*$")
_INDEX: Final = re.compile(r"i\d+ (?P<value>-?\d+)$")
_NOWHERE: Final = "inttoptr (i64 -4096 to ptr)"  # the last page of the address space, which nobody can map
_TRAP: Final = "declare void @llvm.trap()"
_SEVERAL: Final = "several"


@dataclass(frozen=True, slots=True)
class _Step:
    """How a pointer is made of others: at a constant offset from the one, else None."""

    sources: tuple[str, ...]
    offset: int | None


def keep_inside(module: Module) -> None:
    """Check every access of which it is known what it should be inside of."""
    types = named_types(module)
    constants = _constants(module, types)
    trapped = False
    for function in module.functions:
        lines = _Checker(function, types, constants).checked()
        trapped |= len(lines) != len(function.lines) and any(line == "  call void @llvm.trap()" for line in lines)
        function.lines = lines
    if trapped and not any(isinstance(item, str) and item.startswith(_TRAP) for item in module.items):
        module.items.append(_TRAP)


def _constants(module: Module, types: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in module.items:
        match = _GLOBAL.match(item) if isinstance(item, str) and item.startswith("@") else None
        if match is not None:
            kind = match["rest"][: end_of_type(match["rest"], 0)]
            found[match["name"]] = type_bytes(kind, types)[0]
    return found


class _Checker:
    def __init__(self, function: Function, types: Mapping[str, str], constants: Mapping[str, int]) -> None:
        self._function = function
        self._types = types
        self._sizes: dict[str, int] = dict(constants)
        self._steps: dict[str, _Step] = {}
        for line in function.lines:
            if " = " in line:
                self._learn(line)
        self._roots = self._find_roots()
        self._checks = 0

    def checked(self) -> list[str]:
        """Return the function's lines with their checks."""
        lines: list[str] = []
        for line in self._function.lines:
            for place, size in self._accesses(line):
                line = self._guarded(line, place, size, lines)
            lines.append(line)
        return lines

    def _learn(self, line: str) -> None:
        if " = alloca " in line and (match := _SLOT.match(line)):
            self._sizes[match["name"]] = slot_bytes(match["rest"], dict(self._types))
        elif " = getelementptr " in line and (match := _GEP.match(line)):
            kind_end = end_of_type(match["rest"], 0)
            base, *indices = split_arguments(match["rest"][kind_end + 1 :])
            pointer = _POINTER.fullmatch(base)
            offset = self._offset(match["rest"][:kind_end], indices)
            self._steps[match["name"]] = _Step(_pointers([pointer["value"] if pointer is not None else base]), offset)
        elif match := _PHI.match(line):
            values = [piece[2:].rpartition(", ")[0] for piece in split_arguments(match["rest"])]
            self._steps[match["name"]] = _Step(_pointers(values), None)
        elif match := _SELECT.match(line):
            values = [piece.removeprefix("ptr ") for piece in split_arguments(match["rest"])]
            self._steps[match["name"]] = _Step(_pointers(values), None)
        elif match := _COPY.match(line):
            self._steps[match["name"]] = _Step(_pointers([match["value"]]), 0)

    def _offset(self, kind: str, indices: list[str]) -> int | None:
        """Return the offset in bytes that constant indices lead to, None if one is not constant."""
        total, first = 0, True
        for index in indices:
            number = _INDEX.match(index)
            if number is None:
                return None
            value = int(number["value"])
            if first:
                total, first = value * type_bytes(kind, self._types)[0], False
                continue
            kind = self._types.get(kind, kind)
            if kind.startswith(("[", "<")) and not kind.startswith("<{"):
                kind = kind[1:-1].partition(" x ")[2]
                total += value * type_bytes(kind, self._types)[0]
                continue
            packed = kind.startswith("<")
            members = split_arguments(kind[2:-2] if packed else kind[1:-1])
            for member in members[:value]:
                size, align = type_bytes(member, self._types)
                total = (total if packed else -(-total // align) * align) + size
            kind = members[value]
            align = 1 if packed else type_bytes(kind, self._types)[1]
            total = -(-total // align) * align
        return total

    def _find_roots(self) -> dict[str, str]:
        """Return what each pointer is into: the one slot or constant that it is made from, or _SEVERAL."""
        users: defaultdict[str, list[str]] = defaultdict(list)
        for name, step in self._steps.items():
            for source in step.sources:
                users[source].append(name)
        roots = {name: name for name in self._sizes}
        for name, step in self._steps.items():
            if any(source not in self._sizes and source not in self._steps for source in step.sources):
                roots[name] = _SEVERAL
        work = list(roots)
        while work:
            source = work.pop()
            for name in users[source]:
                root = roots[source] if roots.get(name) in (None, roots[source]) else _SEVERAL
                if roots.get(name) != root:
                    roots[name] = root
                    work.append(name)
        return roots

    def _accesses(self, line: str) -> list[tuple[re.Match[str], int]]:
        """Return (pointer operand, bytes) of an access, the last one first."""
        if match := _LOAD.match(line) or _STORE.match(line):
            end = end_of_type(line, match.end())
            places = list(_POINTER.finditer(line, end))  # the last: a pointer may be what is stored
            return [(places[-1], _stored_bytes(line[match.end() : end], self._types))] if places else []
        if "@llvm.mem" in line and (block := _BLOCK.match(line)):
            arguments = split_arguments(block["arguments"])
            size = _INDEX.match(arguments[2])
            places = list(re.finditer(rf"ptr (?:align \d+ )?(?P<value>{_V})(?=[,)])", line))
            return [(place, int(size["value"])) for place in reversed(places)] if size is not None else []
        return []

    def _guarded(self, line: str, place: re.Match[str], size: int, lines: list[str]) -> str:
        pointer = place["value"]
        root = self._roots.get(pointer, _SEVERAL)
        if root == _SEVERAL:
            return line
        offset = self._constant_offset(pointer, root)
        if (expression := _EXPRESSION.search(line[: place.start()])) is not None:
            opened = expression.end("open")
            kind, _base, *indices = split_arguments(line[opened : closing(line, opened - 1)])
            offset = self._offset(kind, indices)
        room = self._sizes[root] - size
        if room < 0 or (offset is not None and not 0 <= offset <= room):
            lines.append("  call void @llvm.trap()")
        elif offset is None:
            at, start, behind, inside, checked = (
                f'%"uxdp.check.{part}.{self._checks}"' for part in ("at", "start", "behind", "inside", "pointer")
            )
            self._checks += 1
            lines += [
                f"  {at} = ptrtoint ptr {pointer} to i64",
                f"  {start} = ptrtoint ptr {root} to i64",
                f"  {behind} = sub i64 {at}, {start}",
                f"  {inside} = icmp ule i64 {behind}, {room}",
                f"  {checked} = select i1 {inside}, ptr {pointer}, ptr {_NOWHERE}",
            ]
            return line[: place.start("value")] + checked + line[place.end("value") :]
        return line

    def _constant_offset(self, pointer: str, root: str) -> int | None:
        total = 0
        seen = 0
        while pointer != root:
            step = self._steps[pointer]
            seen += 1
            if step.offset is None or seen > len(self._steps):
                return None
            total += step.offset
            pointer = step.sources[0]
        return total


def _pointers(values: list[str]) -> tuple[str, ...]:
    """Return the operands, with _SEVERAL for what is no name; null is into nothing."""
    named = re.compile(_V)
    kept = [value for value in values if value not in ("null", "zeroinitializer")]
    return tuple(value if named.fullmatch(value) else _SEVERAL for value in kept) or (_SEVERAL,)


def _stored_bytes(kind: str, types: Mapping[str, str]) -> int:
    width = re.fullmatch(r"i(\d+)", kind)
    return (int(width[1]) + 7) // 8 if width is not None else type_bytes(kind, types)[0]
