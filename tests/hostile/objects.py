"""Objects of one program with one thing added, for tests about that thing."""

import struct

from tests.bundle_factory import Forgery
from tests.elf_forge import EXIT, SHF_ALLOC, SHT_REL, STT_OBJECT, Elf, btf, btf_type, instruction
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.facts import object_facts

INT, PTR, ARRAY, STRUCT, FWD, TYPEDEF, FUNC_PROTO, VAR, DATASEC = 1, 2, 3, 4, 7, 8, 13, 14, 15
RETURN = instruction(0xB7, imm=2) + EXIT


def outcome(data: bytes) -> str:
    """Return the error with which an object is refused, or nothing; any other exception is a failure of the test."""
    try:
        object_facts(data)
    except ObjectError as error:
        assert str(error)
        return str(error)
    return ""


def object_of(case: str) -> bytes:
    """Return the object of a case's bundle."""
    return Forgery.of(case).content("object")


def sections(data: bytes) -> list[tuple[int, ...]]:
    """Return the section headers: name, type, flags, address, offset, size, link, info, alignment, entry size."""
    table, count = struct.unpack_from("<Q", data, 40)[0], struct.unpack_from("<H", data, 60)[0]
    return [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]


def program(code: bytes = RETURN) -> Elf:
    """Return an object with one program."""
    elf = Elf()
    elf.symbol("program", elf.code("xdp", code), 0, len(code))
    return elf


def with_code(code: bytes) -> bytes:
    """Return an object of one program with these instructions."""
    return program(code).image()


def with_btf(types: bytes, strings: bytes = b"\0", *, map_symbols: int = 0) -> bytes:
    """Return an object with BTF, and with as many symbols m0, m1, … in .maps."""
    elf = program()
    elf.add(".BTF", btf(types, strings))
    if map_symbols:
        maps = elf.add(".maps", bytes(8 * map_symbols), flags=SHF_ALLOC)
        for i in range(map_symbols):
            elf.symbol(f"m{i}", maps, 8 * i, 8, kind=STT_OBJECT)
    return elf.image()


def call(target: int, place: int) -> bytes:
    """Return a call, at slot ``place``, of the function that begins at slot ``target`` of the same section."""
    return instruction(0x85, src=1, imm=target - place - 1)


def with_core_records(
    structure: bytes, strings: bytes, record: tuple[int, ...], count: int = 1, *, code: bytes = RETURN
) -> bytes:
    """Return an object with CO-RE records of section "xdp", whose name has to be at offset 1 of the strings.

    :param structure: BTF type 2; type 1 is an int
    """
    table = struct.pack("<III", 16, 1, count) + struct.pack("<4I", *record) * count
    head = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, len(table))
    elf = program(code)
    elf.add(".BTF", btf(btf_type(0, INT, 4, (32,)) + structure, strings))
    elf.add(".BTF.ext", head + table)
    return elf.image()


def relocated(kind: int = SHT_REL, *records: tuple[int, int], **fields: int) -> bytes:
    """Return a program with a table of relocations: (place, symbol)."""
    elf = program()
    data = b"".join(struct.pack("<QII", place, 10, symbol) for place, symbol in records)
    elf.add(".relxdp", data, kind=kind, **({"info": 1, "entry_size": 16} | fields))
    return elf.image()
