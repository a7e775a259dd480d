"""What libbpf made of an object's instructions, and what it decided for this kernel.

libbpf appends to a program the subprograms that it reaches, each once, in the order in which a depth-first walk meets
them, and fills in addresses, descriptors, and what CO-RE says of the running kernel's types. None of its functions
tells where an instruction came from or what was filled in. So the walk is made once more here, over the same
relocations, and checked: what CO-RE does not change must have the operation that libbpf handed to the kernel. Then
comparing the object's instructions with the loaded ones gives every value that libbpf chose.

Offsets are bytes in a section of the object; a *slot* is an index of 8-byte instructions.

Source: libbpf, bpf_object__reloc_code, bpf_object__relocate_data and bpf_core_patch_insn
"""

import struct
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from uxdp_bundle.bpf_object import INSTRUCTION_BYTES, SHN_UNDEF, BpfObject
from uxdp_bundle.btf import SourceLine
from uxdp_bundle.errors import ObjectError, UnsupportedFeatureError
from uxdp_bundle.instructions import CALL, LD_IMM64, LDX, ST, STX, Code, Function, Instruction

_RAW: Final = struct.Struct("<BBhi")
_CLASS_MASK: Final = 0x07
_PSEUDO_KFUNC_CALL: Final = 2  # src of a call: BPF_PSEUDO_KFUNC_CALL
_PSEUDO_BTF_ID: Final = 3  # src of ld_imm64: BPF_PSEUDO_BTF_ID
# What libbpf puts in the place of an instruction whose relocation has no answer: a call of no helper, 0xbad2310, to
# which newer versions add the number of the relocation. The verifier accepts it in code that is never reached.
_POISON_IMM: Final = 195896080
_MASK32: Final = 0xFFFFFFFF


class CoreKind(IntEnum):
    """enum bpf_core_relo_kind of include/uapi/linux/bpf.h: what a relocation asks of the kernel's types."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


class Place(NamedTuple):
    """Where an instruction stands in the object: section name and byte offset."""

    section: str
    offset: int


@dataclass(frozen=True, slots=True)
class CoreValue:
    """One CO-RE relocation and its answer.

    ``type_id`` and ``type_name`` are the object's own, ``access`` is the path such as ``0:3``. ``before`` is the answer
    that the compiler assumed, ``value`` the running kernel's; None if the kernel has no such type or field, which
    libbpf accepts because the verifier refuses whatever reaches the instruction. ``size`` is the size in bytes of the
    load or store that the instruction makes now (libbpf follows a field whose size is another in the kernel), 0 for
    other instructions.
    """

    place: Place
    kind: CoreKind
    type_id: int
    type_name: str
    access: str
    before: int
    value: int | None
    size_before: int
    size: int

    @property
    def placeholder(self) -> str:
        """The name of the global in LLVM IR whose load stands for the answer; of type ids what their global stands for.

        Source: LLVM, BPFAbstractMemberAccess.cpp and BPFPreserveDIType.cpp
        """
        if self.kind in (CoreKind.TYPE_ID_LOCAL, CoreKind.TYPE_ID_TARGET):
            return f"type_id:{self.kind.value}:{self.type_name}"
        return f"llvm.{self.type_name}:{self.kind.value}:{self.before}${self.access}"


class ExternKind(Enum):
    """What an extern of the object is."""

    KCONFIG = "kconfig"
    KSYM = "ksym"
    KFUNC = "kfunc"


@dataclass(frozen=True, slots=True)
class Extern:
    """An extern variable or function, and what it was resolved to.

    KCONFIG: ``value`` is the offset in the section .kconfig. KSYM: the address, or the BTF id if ``by_btf_id``. KFUNC:
    the BTF id. 0 stands for a weak symbol that this kernel has not got.
    """

    name: str
    kind: ExternKind
    value: int
    by_btf_id: bool


@dataclass(frozen=True, slots=True)
class LoadedCode:
    """A program's instructions as they were given to the kernel, and where each of them came from."""

    instructions: tuple[Instruction, ...]
    places: tuple[Place, ...]


class ObjectCode:
    """The instructions of an object, and what became of them."""

    def __init__(self, data: bytes | memoryview) -> None:
        """Parse an object.

        :raises ObjectError: malformed
        """
        self.object = BpfObject(data)
        self._code = Code(self.object)
        executable = [section for section in self.object.sections if section.executable]
        self._sections = {section.name: section for section in executable}
        self._instructions = {section.name: self._code.sections[section.index] for section in executable}
        extension = self.object.btf_ext
        # Place → type id, offset of the access string, kind
        self._core: dict[Place, tuple[int, int, int]] = {
            Place(section, offset): (type_id, access, kind)
            for section, records in (extension.core_relocations.items() if extension is not None else ())
            for offset, type_id, access, kind in records
        }

    def places_of(self, program: str) -> tuple[Place, ...]:
        """Return where each instruction of a program with its subprograms comes from, in the order of libbpf.

        :param program: the name of its entry, a global function outside of .text
        :raises ObjectError: no such function, or a call that leads to no function
        """
        placed: set[Function] = set()
        places: list[Place] = []

        def append(function: Function) -> None:
            placed.add(function)
            section = self._code.section(function).name
            places.extend(Place(section, slot * INSTRUCTION_BYTES) for slot in range(function.start, function.end))
            for _slot, call in sorted(self._code.calls(function).items()):
                if call.function is not None and call.function not in placed:
                    append(call.function)

        entry = self._entry(program)
        append(entry)
        for function in self._code.reachable(entry):  # a handler of exceptions, which nothing calls, comes last
            if function not in placed:
                append(function)
        return tuple(places)

    def line_at(self, place: Place) -> SourceLine | None:
        """Return the source line of an instruction, if the compiler recorded it."""
        line = self.object.line_at(self._sections[place.section], place.offset)
        return None if line is None else replace(line, file=line.file.removeprefix("./"))

    def loaded(self, program: str, raw: bytes) -> LoadedCode:
        """Pair the instructions that libbpf loaded for a program with their places.

        :raises UnsupportedFeatureError: this libbpf composes programs in another way than the ones known here
        """
        instructions, places = decode(raw), self.places_of(program)
        patched = set(self._core)
        # Both halves of a ld_imm64 are replaced if there is no answer.
        patched |= {
            Place(place.section, place.offset + INSTRUCTION_BYTES)
            for place in patched.intersection(places)
            if self._original(place).code == LD_IMM64
        }
        if len(instructions) != len(places) or any(
            instruction.code != self._original(place).code and place not in patched
            for instruction, place in zip(instructions, places, strict=True)
        ):
            raise UnsupportedFeatureError("libbpf", f"composes the program {program} in a way that uxdp does not know")
        return LoadedCode(instructions, places)

    def core_values(self, loaded: LoadedCode) -> dict[Place, CoreValue]:
        """Return the CO-RE relocations of a loaded program with what libbpf chose for them."""
        btf = self.object.btf
        result: dict[Place, CoreValue] = {}
        for index, place in enumerate(loaded.places):
            if btf is None or place not in self._core:
                continue
            type_id, access, kind = self._core[place]
            before, after = self._original(place), loaded.instructions[index]
            following = Place(place.section, place.offset + INSTRUCTION_BYTES)
            wide = before.code == LD_IMM64
            absent = after.code == CALL and after.imm >= _POISON_IMM
            result[place] = CoreValue(
                place=place,
                kind=CoreKind(kind),
                type_id=type_id,
                type_name=btf.type(type_id).name,
                access=btf.string(access),
                before=_value(before, self._original(following) if wide else None),
                value=None if absent else _value(after, loaded.instructions[index + 1] if wide else None),
                size_before=_access_size(before),
                size=0 if absent else _access_size(after),
            )
        return result

    def externs(self, loaded: LoadedCode) -> dict[str, Extern]:
        """Return what the externs that a loaded program refers to were resolved to, by name."""
        btf = self.object.btf
        kconfig = {item.name for item in btf.data_section(".kconfig")} if btf is not None else set()
        result: dict[str, Extern] = {}
        for index, (instruction, place) in enumerate(zip(loaded.instructions, loaded.places, strict=True)):
            relocation = self.object.relocations.get(self._sections[place.section].index, {}).get(place.offset)
            if relocation is None or relocation.symbol.section != SHN_UNDEF:
                continue
            name = relocation.symbol.name
            if instruction.code == CALL:
                # A weak function that the kernel has not got becomes a call of id 0, or with newer libbpf of no helper.
                value = instruction.imm if instruction.src == _PSEUDO_KFUNC_CALL else 0
                result[name] = Extern(name, ExternKind.KFUNC, value, True)
            elif name in kconfig:
                result[name] = Extern(name, ExternKind.KCONFIG, loaded.instructions[index + 1].imm, False)
            elif instruction.src == _PSEUDO_BTF_ID:  # a variable, or a function that is compared with NULL
                result.setdefault(name, Extern(name, ExternKind.KSYM, instruction.imm, True))
            else:
                address = _value(instruction, loaded.instructions[index + 1])
                result.setdefault(name, Extern(name, ExternKind.KSYM, address, False))
        return result

    def _entry(self, program: str) -> Function:
        for section in self._sections.values():
            for function in self._code.functions[section.index]:
                if function.name == program and section.name != ".text":
                    return function
        raise ObjectError("no such program", context=f"program {program}")

    def _original(self, place: Place) -> Instruction:
        return self._instructions[place.section][place.offset // INSTRUCTION_BYTES]


def decode(raw: bytes) -> tuple[Instruction, ...]:
    """Decode instructions."""
    return tuple(
        Instruction(code, registers & 0xF, registers >> 4, offset, imm)
        for code, registers, offset, imm in _RAW.iter_unpack(raw)
    )


def _value(first: Instruction, second: Instruction | None) -> int:
    """Return the field of an instruction that a CO-RE relocation is about; ``second`` is the rest of a ld_imm64."""
    if second is not None:
        return (first.imm & _MASK32) | (second.imm & _MASK32) << 32
    return first.offset if first.code & _CLASS_MASK in (LDX, ST, STX) else first.imm


def _access_size(instruction: Instruction) -> int:
    return instruction.size if instruction.code & _CLASS_MASK in (LDX, ST, STX) else 0
