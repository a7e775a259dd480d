"""Decode eBPF instructions, and find the functions they form.

Source: Documentation/bpf/standardization/instruction-set.rst; libbpf, bpf_object__reloc_code (how calls are relocated)
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from .bpf_object import (
    INSTRUCTION_BYTES,
    SHN_LORESERVE,
    SHN_UNDEF,
    STB_WEAK,
    STT_FUNC,
    BpfObject,
    Section,
    Symbol,
)
from .btf import Kind
from .errors import ObjectError

# Instruction classes (code & 7)
LD: Final = 0x00
LDX: Final = 0x01
ST: Final = 0x02
STX: Final = 0x03
ALU: Final = 0x04
JMP: Final = 0x05
JMP32: Final = 0x06
ALU64: Final = 0x07

LD_IMM64: Final = 0x18
CALL: Final = 0x85
CALLX: Final = 0x8D  # call the address in a register; the verifier knows no such thing
EXIT: Final = 0x95
JA: Final = 0x05
JA32: Final = 0x06
GOTOX: Final = 0x0D  # jump to the address in a register, which comes from a jump table
MOV64_X: Final = 0xBF
ADD64_K: Final = 0x07
SUB64_K: Final = 0x17
STX_DW: Final = 0x7B

MODE_MASK: Final = 0xE0
MODE_ATOMIC: Final = 0xC0
SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
ATOMIC_FETCH: Final = 0x01
ATOMIC_CMPXCHG: Final = 0xF1
ATOMIC_LOAD_ACQUIRE: Final = 0x100

PSEUDO_CALL: Final = 1  # src of a call: another BPF function, or with an undefined symbol a kfunc

JUMP_TABLES: Final = ".jumptables"
_JUMP_TABLE_ENTRY = struct.Struct("<Q")
_EXCEPTION_CALLBACK = "exception_callback:"

# BPF_MAX_SUBPROGS of include/linux/bpf_verifier.h
MAX_FUNCTIONS: Final = 256

_RAW = struct.Struct("<BBhi")


class Instruction(NamedTuple):
    """One 8-byte slot. The second slot of ld_imm64 decodes to code 0."""

    code: int
    dst: int
    src: int
    offset: int
    imm: int

    @property
    def size(self) -> int:
        """Bytes that a load or store moves."""
        return SIZES[self.code & 0x18]


class Function(NamedTuple):
    """A function: instruction slots [start, end) of a section."""

    name: str
    section: int
    start: int
    end: int
    bind: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a call or callback reference means: exactly one of ``helper``, ``kfunc`` and ``function`` is set.

    ``weak`` tells of a kfunc that the program can do without.
    """

    helper: int | None = None
    kfunc: str | None = None
    function: Function | None = None
    weak: bool = False


class Code:
    """The instructions of an object by section index, its functions, and what their calls reach."""

    def __init__(self, bpf_object: BpfObject) -> None:
        """Decode every section of instructions.

        :raises ObjectError: functions that overlap or leave their section
        """
        self._object = bpf_object
        self.sections: dict[int, list[Instruction]] = {
            section.index: [
                Instruction(code, registers & 0xF, registers >> 4, offset, imm)
                for code, registers, offset, imm in _RAW.iter_unpack(section.data)
            ]
            for section in bpf_object.sections
            if section.executable
        }
        self.functions: dict[int, list[Function]] = {index: [] for index in self.sections}
        for symbol in bpf_object.symbols:
            if symbol.type == STT_FUNC and symbol.section in self.sections:
                self.functions[symbol.section].append(self._function(symbol))
        for functions in self.functions.values():
            functions.sort(key=lambda function: function.start)
            for one, other in pairwise(functions):
                if other.start < one.end:
                    raise ObjectError(f"functions {one.name} and {other.name} overlap", context="object")
        self._at = {(f.section, f.start): f for functions in self.functions.values() for f in functions}
        self._calls: dict[Function, dict[int, Call]] = {}
        self._jump_targets: dict[Function, list[int]] = {}
        self._handlers = exception_callbacks(bpf_object)

    def section(self, function: Function) -> Section:
        """Return the section that holds a function."""
        return self._object.sections[function.section]

    def at(self, section: int, slot: int) -> Function:
        """Return the function that begins at an instruction slot."""
        found = self._at.get((section, slot))
        if found is None:
            name = self._object.sections[section].name if section < SHN_LORESERVE else f"#{section:#x}"
            raise ObjectError(f"no function begins at instruction {slot}", context=f"section {name}")
        return found

    def calls(self, function: Function) -> dict[int, Call]:
        """Return what a function's instructions call or refer to as a callback, by slot.

        :raises ObjectError: a call that no loader can resolve
        """
        found = self._calls.get(function)
        if found is None:
            found = self._calls[function] = dict(self._find_calls(function))
        return found

    def where(self, function: Function, slot: int) -> str:
        """Return the place of an instruction for messages: the C line if known, else section and slot."""
        section = self.section(function)
        line = self._object.line_at(section, slot * INSTRUCTION_BYTES)
        return str(line) if line is not None else f"section {section.name}, instruction {slot}"

    def reachable(self, entry: Function) -> list[Function]:
        """Return ``entry`` and every function it reaches through calls, callbacks and exceptions, as discovered.

        :raises ObjectError: they are more than the verifier allows, or a call that no loader can resolve
        """
        found = {entry: None}  # keys of a dict: a set that keeps its order
        work = [entry]
        handler = self._handlers.get(entry.name)
        if handler is not None:
            callback = next((f for fs in self.functions.values() for f in fs if f.name == handler), None)
            if callback is not None:
                found[callback] = None
                work.append(callback)
        for function in work:
            for call in self.calls(function).values():
                if call.function is not None and call.function not in found:
                    found[call.function] = None
                    work.append(call.function)
            if len(found) > MAX_FUNCTIONS:
                raise ObjectError(f"reaches more than {MAX_FUNCTIONS} functions", context=f"function {entry.name}")
        return list(found)

    def jump_targets(self, function: Function) -> list[int]:
        """Return the slots to which a function's jump tables lead.

        :raises ObjectError: a table, or a target in it, that is outside of where it has to be
        """
        found = self._jump_targets.get(function)
        if found is None:
            found = self._jump_targets[function] = self._find_jump_targets(function)
        return found

    def _find_jump_targets(self, function: Function) -> list[int]:
        targets: set[int] = set()
        for slot in range(function.start, function.end):
            symbol = self._symbol(function, slot)
            if symbol is None or symbol.section >= SHN_LORESERVE:
                continue
            section = self._object.sections[symbol.section]
            if section.name != JUMP_TABLES:
                continue
            table = section.data[symbol.value : symbol.value + symbol.size]
            if not table or len(table) != symbol.size or len(table) % _JUMP_TABLE_ENTRY.size:
                raise ObjectError(f"{symbol.size} bytes at {symbol.value}", context=f"jump table {symbol.name}")
            for (offset,) in _JUMP_TABLE_ENTRY.iter_unpack(table):
                target = offset // INSTRUCTION_BYTES
                if offset % INSTRUCTION_BYTES or not function.start <= target < function.end:
                    raise ObjectError(f"leads to byte {offset}", context=f"jump table {symbol.name}")
                targets.add(target)
        return sorted(targets)

    def _symbol(self, function: Function, slot: int) -> Symbol | None:
        relocation = self._object.relocations.get(function.section, {}).get(slot * INSTRUCTION_BYTES)
        return None if relocation is None else relocation.symbol

    def _find_calls(self, function: Function) -> Iterator[tuple[int, Call]]:
        instructions = self.sections[function.section]
        slot = function.start
        while slot < function.end:
            instruction = instructions[slot]
            if instruction.code == CALL:
                yield slot, self._called(function, slot, instruction)
            elif instruction.code == LD_IMM64:
                symbol = self._symbol(function, slot)
                if symbol is not None and symbol.section in self.sections:
                    target = (symbol.value + instruction.imm) // INSTRUCTION_BYTES
                    yield slot, Call(function=self.at(symbol.section, target))
                slot += 1
            slot += 1

    def _called(self, function: Function, slot: int, instruction: Instruction) -> Call:
        symbol = self._symbol(function, slot)
        if symbol is not None and symbol.section == SHN_UNDEF:
            return Call(kfunc=symbol.name, weak=symbol.bind == STB_WEAK)
        if instruction.src == 0 and symbol is None:
            return Call(helper=instruction.imm)
        if instruction.src != PSEUDO_CALL:
            raise ObjectError(f"call with source register {instruction.src}", context=self.where(function, slot))
        # A call inside of a section has no relocation, and counts from itself.
        section = function.section if symbol is None else symbol.section
        base = slot if symbol is None else symbol.value // INSTRUCTION_BYTES
        return Call(function=self.at(section, base + instruction.imm + 1))

    def _function(self, symbol: Symbol) -> Function:
        start, end = symbol.value, symbol.value + symbol.size
        limit = self._object.sections[symbol.section].size
        if start % INSTRUCTION_BYTES or symbol.size % INSTRUCTION_BYTES or not start < end <= limit:
            raise ObjectError(f"bytes {start}..{end} of {limit}", context=f"function {symbol.name}")
        return Function(symbol.name, symbol.section, start // INSTRUCTION_BYTES, end // INSTRUCTION_BYTES, symbol.bind)


def exception_callbacks(bpf_object: BpfObject) -> dict[str, str]:
    """Return which function handles the exceptions (bpf_throw) of which program: no instruction refers to it.

    Source: libbpf, bpf_prog_assign_exc_cb: the program's declaration tag "exception_callback:NAME"
    """
    if bpf_object.btf is None:
        return {}
    return {
        bpf_object.btf.type(tag.size_or_type).name: tag.name.removeprefix(_EXCEPTION_CALLBACK)
        for tag in bpf_object.btf.types
        if tag.kind is Kind.DECL_TAG and tag.name.startswith(_EXCEPTION_CALLBACK)
    }
