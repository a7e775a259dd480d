"""What a program compares frames with: the constants that steer the generator into its branches.

A program that looks for port 80 compares with 0x5000, the bytes as they lie in memory; one that swaps first compares
with 80. Nothing tells which, so every number is tried in both byte orders and in every width that holds it. Longer
constants, such as a map's keys, also count by their parts: in a key of address, port and protocol each is a window
of bytes at an even offset.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from uxdp_bundle.bpf_object import INSTRUCTION_BYTES, BpfObject, Section
from uxdp_bundle.instructions import ALU, ALU64, CALL, EXIT, JA, JMP, JMP32, LD_IMM64, ST, Code, Instruction
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import global_data_kind

from .headers import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP

_CLASS_MASK: Final = 0x07
_SOURCE_REGISTER: Final = 0x08  # BPF_X: the operand is a register
_OPERATION_MASK: Final = 0xF0
_ALU_XOR: Final = 0xA0  # clang compares two halves of a word with xor and or
_ALU_MOV: Final = 0xB0
_NOT_A_COMPARISON: Final = frozenset({CALL & _OPERATION_MASK, EXIT & _OPERATION_MASK, JA & _OPERATION_MASK})

# Types of maps whose keys are numbers of places.
_INDEXED: Final = frozenset({"array", "percpu_array", "prog_array", "devmap", "devmap_hash", "cpumap", "xskmap"})
# More than any program has; a table of a million entries in .rodata shall not slow the generator down.
MAX_CONSTANTS: Final = 4096
_MAX_DATA_WINDOW: Final = 64
_PROTOCOLS: Final = frozenset({IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMPV6})
_SIZES: Final = (1, 2, 4, 6, 8, 16)


def keys_of(maps: Iterable[MapDefinition], contents: Mapping[str, Iterable[tuple[bytes, bytes]]]) -> set[bytes]:
    """Return the keys of a program's maps that a frame may hold: all but the indices of arrays.

    :param contents: (key, value) pairs by map
    """
    names = {definition.name for definition in maps if definition.type not in _INDEXED}
    return {key for name, items in contents.items() if name in names for key, _value in items}


def constants_of(data: bytes) -> tuple[int | bytes, ...]:
    """Return the constants of an eBPF object, in a fixed order and each once.

    These are the immediate operands of comparisons, moves and stores, as signed numbers where the instruction extends
    the sign, and the content of initialised global data, as bytes. Zero and minus one steer nothing and are left out.

    :param data: the whole object
    :raises ObjectError: malformed
    """
    bpf_object = BpfObject(data)
    code = Code(bpf_object)
    found: dict[int | bytes, None] = {}  # keys of a dict: a set that keeps its order
    for index, instructions in code.sections.items():
        relocated = {offset // INSTRUCTION_BYTES for offset in bpf_object.relocations.get(index, {})}
        for value in _immediates(instructions, relocated):
            if value not in (0, -1):
                found[value] = None
    for section in bpf_object.sections:
        if global_data_kind(section) in ("data", "rodata"):
            for content in _contents(bpf_object, section):
                if any(content):
                    found[content] = None
    return tuple(found)[:MAX_CONSTANTS]


def _immediates(instructions: list[Instruction], relocated: set[int]) -> Iterator[int]:
    for slot, instruction in enumerate(instructions):
        kind, operation = instruction.code & _CLASS_MASK, instruction.code & _OPERATION_MASK
        if instruction.code == LD_IMM64:
            if slot not in relocated and instruction.src == 0 and slot + 1 < len(instructions):
                yield (instructions[slot + 1].imm & 0xFFFFFFFF) << 32 | instruction.imm & 0xFFFFFFFF
        elif kind == ST:
            yield instruction.imm
        elif instruction.code & _SOURCE_REGISTER:
            continue
        elif kind in (JMP, JMP32):
            if operation not in _NOT_A_COMPARISON:
                yield instruction.imm
        elif kind in (ALU, ALU64) and operation in (_ALU_MOV, _ALU_XOR):
            yield instruction.imm


def _contents(bpf_object: BpfObject, section: Section) -> Iterator[bytes]:
    """Return the values of a section's variables; what is longer than a window, and what has no symbol, in pieces."""
    position = 0
    for start, size in sorted({(s.value, s.size) for s in bpf_object.symbols if s.section == section.index and s.size}):
        if start + size <= len(section.data):
            yield from _pieces(section.data[position:start])
            yield from _pieces(section.data[start : start + size])
            position = max(position, start + size)
    yield from _pieces(section.data[position:])


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, min(len(content), MAX_CONSTANTS * _MAX_DATA_WINDOW), _MAX_DATA_WINDOW):
        yield content[start : start + _MAX_DATA_WINDOW]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one long constant may say about a flow: a map's key often is a flow, a service or a prefix."""

    addresses4: tuple[bytes, ...]
    addresses6: tuple[bytes, ...]
    ports: tuple[int, ...]
    protocols: tuple[int, ...]


class Steering:
    """Constants prepared for planting: ``of_size[n]`` are those that fit a field of n bytes, as they lie in a frame.

    ``strings`` are those that fit no usual field and go anywhere, ``endpoints`` what long ones may say about flows. The
    order depends on nothing but the values, so equal constants steer equally, in whatever collection they come.
    """

    def __init__(self, constants: Collection[int | bytes] = ()) -> None:
        """Prepare constants; what exceeds MAX_CONSTANTS is ignored."""
        numbers = sorted({constant for constant in constants if isinstance(constant, int)})
        strings = sorted({bytes(constant) for constant in constants if not isinstance(constant, int)})
        sizes: dict[int, dict[bytes, None]] = {size: {} for size in _SIZES}
        for string in strings[:MAX_CONSTANTS]:
            for window in _windows(string):
                sizes[len(window)][window] = None
        for number in numbers[:MAX_CONSTANTS]:
            for packed in _packed(number):
                sizes[len(packed)][packed] = None
        self.of_size: dict[int, tuple[bytes, ...]] = {size: tuple(found) for size, found in sizes.items()}
        self.strings = tuple(_unique([*(s for s in strings[:MAX_CONSTANTS] if len(s) > 2), *sizes[8]]))
        self.endpoints = tuple(filter(None, map(_endpoint, strings[:MAX_CONSTANTS])))
        self.ports = tuple(int.from_bytes(packed, "big") for packed in self.of_size[2])
        self.protocols = tuple(packed[0] for packed in self.of_size[1])


def _packed(number: int) -> Iterator[bytes]:
    if number < 0:
        number &= 0xFFFFFFFF if number >= -(1 << 31) else 0xFFFFFFFFFFFFFFFF
    for size, least in ((1, 0), (2, 0), (4, 0x100), (8, 1 << 32)):
        if least <= number < 1 << 8 * size:
            yield number.to_bytes(size, "big")
            yield number.to_bytes(size, "little")


def _windows(string: bytes) -> Iterator[bytes]:
    if len(string) in _SIZES:
        yield string
    for size, step in ((16, 4), (6, 2), (4, 4), (2, 2)):
        for start in range(0, len(string) - size + 1, step):
            window = string[start : start + size]
            if any(window):
                yield window


def _endpoint(string: bytes) -> Endpoint | None:
    addresses4 = tuple(_unique(w for w in _aligned(string, 4) if w[0] not in (0, 0xFF)))
    addresses6 = tuple(_unique(w for w in _aligned(string, 16) if any(w)))
    if not addresses4 and not addresses6:
        return None
    ports = _unique(w for w in _aligned(string, 2) if any(w) and not any(w in address for address in addresses4))
    return Endpoint(
        addresses4,
        addresses6,
        tuple(int.from_bytes(window, "big") for window in ports),
        tuple(_unique(byte for byte in string if byte in _PROTOCOLS)),
    )


def _aligned(string: bytes, size: int) -> Iterator[bytes]:
    step = min(size, 4)
    return (string[start : start + size] for start in range(0, len(string) - size + 1, step))


_T = TypeVar("_T")


def _unique(values: Iterable[_T]) -> Iterator[_T]:
    return iter(dict.fromkeys(values))
