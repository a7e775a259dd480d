"""may_goto: the jump that the kernel takes when a loop has run for too long. In IR, and on its way into an object.

The verifier takes a loop with such a jump for bounded, for the kernel ends it after a quarter of a second. C has it as
assembly, ``asm volatile goto("may_goto %l[end]")``: can_loop and cond_break. In a bundle's IR it is

    callbr void asm sideeffect "may_goto ${0:l}", "!i"()
            to label %on [label %end]

which llvmlite's BPF backend cannot lower, as it has no parser for assembly. So what is lowered has a comparison with a
number in its place, and the object that comes of it gets the instruction where the comparison is. Which comparisons
these are is found by lowering twice, with two numbers: the two objects differ there and nowhere else.

Reference: Linux, kernel/bpf/verifier.c, is_may_goto_insn and do_misc_fixups
"""

import re
import struct
from collections.abc import Callable
from typing import Final

from .ir_syntax import NAME, first_block

INSTRUCTION: Final = 'callbr void asm sideeffect "may_goto ${0:l}", "!i"()'
IN_IR: Final = re.compile(rf"^  {re.escape(INSTRUCTION)}(?: #\d+)*$")
DESTINATIONS: Final = re.compile(
    rf"^ +to label (?P<on>%{NAME}) \[label (?P<end>%{NAME})\](?P<location>(?:, !dbg !\d+)?)(?P<rest>(?:, !.*)?)$"
)
_LABEL: Final = re.compile(rf"^(?P<name>{NAME}):")
_EDGE: Final = re.compile(rf", (?P<block>%{NAME}) \]")
# Two numbers of 31 bits without a byte in common: each place that they stand in differs in four bytes.
_NUMBERS: Final = (0x6D617967, 0x129E8698)
_NUMBER_BYTES: Final = 4
_INSTRUCTION: Final = struct.Struct("<BBhi")
_JEQ_K: Final = 0x15  # if the register is the number, jump
_JCOND: Final = 0xE5  # BPF_JMP | BPF_JCOND, with source register BPF_MAY_GOTO, which is 0
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SHF_EXECINSTR: Final = 4


class MayGotoError(Exception):
    """The backend made something else of a may_goto than a jump that can be told from others."""


def lower(module: object, emit: Callable[[str | None], bytes]) -> bytes:
    """Return the object of a module.

    :param module: prints as LLVM prints it
    :param emit: makes an object of a module's text, or of the module itself, whose text is None
    :raises MayGotoError: the jumps cannot be found in what it makes
    """
    text = str(module)
    if INSTRUCTION not in text:
        return emit(None)
    one, other = (emit(_with_comparisons(text, number)) for number in _NUMBERS)
    return _patched(one, other)


def _with_comparisons(text: str, number: int) -> str:
    made: list[str] = []
    renamed: dict[tuple[str, str], str] = {}  # the block of a phi, where an edge began
    function = block = ""
    lines = iter(text.split("\n"))
    count = 0
    for line in lines:
        if line.startswith("define "):
            function, block = line, first_block(line)
        elif label := _LABEL.match(line):
            block = f"%{label['name']}"
        if not IN_IR.match(line):
            made.append(line)
            continue
        where = DESTINATIONS.match(next(lines))
        if where is None:
            raise MayGotoError("a may_goto that leads nowhere")
        name = f"uxdp.may_goto.{count}"
        count += 1
        location, following = where["location"], where["on"]
        if where["on"] != where["end"]:
            # The block behind the jump must be another than its target, or the jump would be turned round.
            following = f'%"{name}.on"'
            renamed[f"{function}{where['on']}", block] = following
        made += [
            f'  %"{name}" = call i64 asm sideeffect "", "=r"(){location}',
            f'  %"{name}.met" = icmp eq i64 %"{name}", {number}{location}',
            f'  br i1 %"{name}.met", label {where["end"]}, label {following}{location}',
        ]
        if following != where["on"]:
            made += [
                f'"{name}.on":',
                f'  call void asm sideeffect "", ""(){location}',
                f"  br label {where['on']}{location}",
            ]
    return "\n".join(_with_edges(made, renamed))


def _with_edges(lines: list[str], renamed: dict[tuple[str, str], str]) -> list[str]:
    """Let phis name the blocks that lie between."""
    function = block = ""
    made = []
    for line in lines:
        if line.startswith("define "):
            function, block = line, first_block(line)
        elif label := _LABEL.match(line):
            block = f"%{label['name']}"
        elif " = phi " in line:
            here = f"{function}{block}"
            line = _EDGE.sub(lambda edge: f", {renamed.get((here, edge['block']), edge['block'])} ]", line)  # noqa: B023
        made.append(line)
    return made


def _patched(one: bytes, other: bytes) -> bytes:
    """Return the object with the instructions in the places in which the two differ."""
    if len(one) != len(other):
        raise MayGotoError("the objects of two numbers have other sizes")
    patched = bytearray(one)
    changed = bytearray(other)
    numbers = [struct.pack("<i", number) for number in _NUMBERS]
    for start, size in _code(one):
        for at in range(start, start + size, _INSTRUCTION.size):
            number = slice(at + _INSTRUCTION.size - _NUMBER_BYTES, at + _INSTRUCTION.size)
            if [one[number], other[number]] != numbers:
                continue
            code, registers, offset, _number = _INSTRUCTION.unpack_from(one, at)
            if code != _JEQ_K or registers >> 4:
                raise MayGotoError(f"the number is in an instruction of code {code:#x}")
            for data in (patched, changed):
                _INSTRUCTION.pack_into(data, at, _JCOND, 0, offset, 0)
    if patched != changed:
        raise MayGotoError("the objects of two numbers differ elsewhere")
    return bytes(patched)


def _code(data: bytes) -> list[tuple[int, int]]:
    """Return where the sections of instructions are in an object that LLVM made: (offset, size)."""
    header = _HEADER.unpack_from(data)
    sections = (_SECTION.unpack_from(data, header[6] + index * _SECTION.size) for index in range(header[12]))
    return [(section[4], section[5]) for section in sections if section[2] & _SHF_EXECINSTR]
