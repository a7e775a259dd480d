"""Read BPF assembly, as it stands in an ``asm`` statement of C: text in, statements out.

What the instructions mean is not looked at here (see assembly_ir). A register is a name: ``r0`` … ``r9``, or ``$N`` for
operand N of the ``asm``, each with the width that the text uses it with. A target of a jump is the slot of the
instruction it leads to, or the number of an operand that is a label of C.

References: LLVM, lib/Target/BPF/BPFInstrInfo.td; Documentation/bpf/standardization/instruction-set.rst
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Final

_REGISTER: Final = re.compile(
    r"(?P<width>[rw])(?P<number>10|[0-9])|\$(?:(?P<plain>\d+)|\{(?P<operand>\d+)(?P<w>:w)?\})"
)
_NUMBER: Final = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|\d+)")
_LABEL: Final = re.compile(r"^(?P<name>[A-Za-z_.$][\w.$]*|\d+)\s*:(?!=)\s*")
_ARITHMETIC: Final = re.compile(r"(?P<left>\S+) (?P<operator>s>>|s/|s%|<<|>>|[-+*/%&|^])= (?P<right>\S+)")
_MOVE: Final = re.compile(r"(?P<left>\S+) = (?P<right>\S+)")
_WIDE: Final = re.compile(r"(?P<left>\S+) = (?P<right>\S+) ll")
_NEGATE: Final = re.compile(r"(?P<left>\S+) = -(?P<right>[rw$]\S*)")
_EXTEND: Final = re.compile(r"(?P<left>\S+) = \(s(?P<bits>8|16|32)\) ?(?P<right>\S+)")
_SWAP: Final = re.compile(r"(?P<left>\S+) = (?P<how>be|le|bswap)(?P<bits>16|32|64) (?P<right>\S+)")
_MEMORY: Final = r"\*\((?P<sign>[us])(?P<bits>8|16|32|64) \*\)\((?P<base>\S+)(?: (?P<offset>[-+] ?\S+))?\)"
_LOAD: Final = re.compile(rf"(?P<left>\S+) = {_MEMORY}")
_STORE: Final = re.compile(rf"{_MEMORY} = (?P<right>\S+)")
_ATOMIC: Final = re.compile(rf"lock {_MEMORY} (?P<operator>[-+&|^])= (?P<right>\S+)")
_BRANCH: Final = re.compile(
    r"if (?P<left>\S+) (?P<operator>==|!=|s>=|s<=|s>|s<|>=|<=|>|<|&) (?P<right>\S+) goto (?P<target>\S+)"
)
_GOTO: Final = re.compile(r"gotol? (?P<target>\S+)")
_MAY_GOTO: Final = re.compile(r"may_goto (?P<target>\S+)")
_CALL: Final = re.compile(r"call (?P<right>\S+)")
_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*")
_LABEL_OPERAND: Final = re.compile(r"\$\{(\d+):l\}")
_RELATIVE: Final = re.compile(r"\+(0[xX][0-9a-fA-F]+|\d+)")
# What bpf_experimental.h of before may_goto was known to assemblers has in its place.
_MAY_GOTO_BYTES: Final = re.compile(
    r"1: ?\.byte 0xe5; ?\.byte 0; ?\.long \(\((?P<target>\$\{\d+:l\}) - 1b - 8\) / 8\) & 0xffff; ?\.short 0"
)
_S32: Final = range(-(1 << 31), 1 << 31)
_S64: Final = range(-(1 << 63), 1 << 64)
MAX_STATEMENTS: Final = 4096


class AssemblyError(Exception):
    """Assembly that is not understood; the message says which."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register by name, and whether the text means its lower 32 bits alone."""

    name: str
    is_word: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where a jump leads: to a slot of the text, or to the label that is an operand."""

    slot: int = -1
    operand: int = -1


NONE: Final = Register("", is_word=False)
NOWHERE: Final = Target()


@dataclass(frozen=True, slots=True)
class Statement:
    """One instruction.

    ``kind`` is one of arithmetic, move, negate, extend, swap, load, store, atomic, branch, goto, may_goto and call;
    ``operator`` what it says besides: the operator, ``be``, ``le`` or ``bswap``, ``s`` or ``u`` of a load, the name of
    a function that is called. ``right`` is a register or a number; of a memory access ``base`` and ``offset`` are the
    address, ``bits`` the width.
    """

    text: str
    slot: int
    kind: str
    operator: str = ""
    left: Register = NONE
    right: Register | int = 0
    bits: int = 64
    base: Register = NONE
    offset: int = 0
    target: Target = NOWHERE

    @property
    def behind(self) -> int:
        """The slot behind the instruction."""
        return self.slot + (2 if self.text.endswith(" ll") else 1)


def parse(template: str, numbers: Mapping[int, int], words: Set[int] = frozenset()) -> list[Statement]:
    """Return the statements of a template.

    :param template: as in LLVM's IR, with escapes of strings undone: ``$0``, ``${1}``, ``${2:l}``
    :param numbers: the operands that are printed as numbers
    :param words: those that are printed as registers of 32 bits
    :raises AssemblyError: something in it is not understood
    """
    template = re.sub(r"\$([|()])", r"\1", template.replace("${:uid}", "0"))
    if found := _MAY_GOTO_BYTES.fullmatch(" ".join(template.split())):
        template = f"may_goto {found['target']}"
    template = re.sub(r"\$(\d+)|\$\{(\d+)\}", lambda match: _printed(match, numbers, words), template)
    labels: dict[str, list[int]] = {}
    pieces: list[tuple[int, str]] = []
    slot = 0
    for piece in re.split(r"[;\n]", re.sub(r"(?://|#)[^\n]*|/\*.*?\*/", "", template)):
        text = " ".join(piece.split())
        while match := _LABEL.match(text):
            labels.setdefault(match["name"], []).append(slot)
            text = text[match.end() :]
        if not text:
            continue
        pieces.append((slot, text))
        slot += 2 if _WIDE.fullmatch(text) else 1
        if slot > MAX_STATEMENTS:
            raise AssemblyError(f"more than {MAX_STATEMENTS} instructions")
    return [_with_target(_statement(text, place), labels, slot) for place, text in pieces]


def _printed(match: re.Match[str], numbers: Mapping[int, int], words: Set[int]) -> str:
    operand = int(match[1] or match[2])
    if operand in numbers:
        return str(numbers[operand])
    return f"${{{operand}:w}}" if operand in words else match[0]


def _statement(text: str, slot: int) -> Statement:
    """Read one instruction; a target of a jump is still text, in ``operator``'s company: see _with_target."""
    if match := _WIDE.fullmatch(text):
        is_address = match["right"].startswith("$")  # of a map, for one
        right = _register(match["right"], text) if is_address else _number(match["right"], text, _S64)
        return Statement(text, slot, "move", left=_register(match["left"], text), right=right)
    if match := _ATOMIC.fullmatch(text):
        return _access(match, text, slot, "atomic", match["operator"], right=_register(match["right"], text))
    if match := _STORE.fullmatch(text):
        return _access(match, text, slot, "store", right=_operand(match["right"], text))
    if match := _LOAD.fullmatch(text):
        return _access(match, text, slot, "load", match["sign"], left=_register(match["left"], text))
    if match := _BRANCH.fullmatch(text):
        left, right = _register(match["left"], text), _operand(match["right"], text)
        return Statement(text, slot, "branch", match["operator"], left, right)
    if match := _ARITHMETIC.fullmatch(text):
        left, right = _register(match["left"], text), _operand(match["right"], text)
        return Statement(text, slot, "arithmetic", match["operator"], left, right)
    if match := _EXTEND.fullmatch(text):
        left, right = _register(match["left"], text), _register(match["right"], text)
        return Statement(text, slot, "extend", left=left, right=right, bits=int(match["bits"]))
    if match := _SWAP.fullmatch(text):
        left, right = _register(match["left"], text), _register(match["right"], text)
        return Statement(text, slot, "swap", match["how"], left, right, int(match["bits"]))
    if match := _NEGATE.fullmatch(text):
        return Statement(
            text, slot, "negate", left=_register(match["left"], text), right=_register(match["right"], text)
        )
    if match := _MOVE.fullmatch(text):
        return Statement(text, slot, "move", left=_register(match["left"], text), right=_operand(match["right"], text))
    if match := _CALL.fullmatch(text):
        if _FUNCTION.fullmatch(match["right"]):
            return Statement(text, slot, "call", match["right"])
        return Statement(text, slot, "call", right=_number(match["right"], text, range(1, 1 << 16)))
    if _MAY_GOTO.fullmatch(text):
        return Statement(text, slot, "may_goto")
    if _GOTO.fullmatch(text):
        return Statement(text, slot, "goto")
    raise AssemblyError(f"{text[:60]!r} is not understood")


def _access(
    match: re.Match[str],
    text: str,
    slot: int,
    kind: str,
    operator: str = "",
    left: Register = NONE,
    right: Register | int = 0,
) -> Statement:
    offset = _number((match["offset"] or "0").replace(" ", ""), text, range(-(1 << 15), 1 << 15))
    base = _register(match["base"], text)
    return Statement(text, slot, kind, operator, left, right, int(match["bits"]), base, offset)


def _with_target(statement: Statement, labels: Mapping[str, list[int]], end: int) -> Statement:
    """Let a jump know where it leads: forward, inside of the text or to its end, or to a label of C."""
    match = next((found for form in (_BRANCH, _MAY_GOTO, _GOTO) if (found := form.fullmatch(statement.text))), None)
    if match is None:
        return statement
    text = match["target"]
    if operand := _LABEL_OPERAND.fullmatch(text):
        return replace(statement, target=Target(operand=int(operand[1])))
    if relative := _RELATIVE.fullmatch(text):
        slots = [statement.slot + 1 + int(relative[1], 0)]
    elif local := re.fullmatch(r"(\d+)f", text):
        slots = [slot for slot in labels.get(local[1], ()) if slot > statement.slot][:1]
    else:
        slots = labels.get(text, [])
    if len(slots) != 1 or not statement.slot < slots[0] <= end:
        raise AssemblyError(f"{statement.text[:60]!r} leads to no place further down")
    return replace(statement, target=Target(slot=slots[0]))


def _register(text: str, where: str) -> Register:
    match = _REGISTER.fullmatch(text)
    if match is None:
        raise AssemblyError(f"{text!r} in {where[:60]!r} is no register")
    if match["width"]:
        return Register(f"r{match['number']}", match["width"] == "w")
    return Register(f"${match['plain'] or match['operand']}", match["w"] is not None)


def _operand(text: str, where: str) -> Register | int:
    return _register(text, where) if _REGISTER.fullmatch(text) else _number(text, where, _S32)


def _number(text: str, where: str, allowed: range) -> int:
    if _NUMBER.fullmatch(text) and (number := int(text, 0)) in allowed:
        return number
    raise AssemblyError(f"{text!r} in {where[:60]!r} is no number that fits")
