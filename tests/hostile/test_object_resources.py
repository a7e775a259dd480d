"""Objects that are made to take for ever, or all memory: both have to stay bounded."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.elf_forge import (
    EXIT,
    SHF_ALLOC,
    SHT_NOBITS,
    SHT_REL,
    SHT_STRTAB,
    SHT_SYMTAB,
    STB_LOCAL,
    STT_OBJECT,
    Elf,
    btf,
    btf_type,
    instruction,
)
from tests.hostile.objects import (
    ARRAY,
    DATASEC,
    FWD,
    INT,
    PTR,
    RETURN,
    STRUCT,
    VAR,
    call,
    program,
    sections,
    with_btf,
    with_code,
    with_core_records,
)
from tests.hostile.workbench import TIMEOUT_SECONDS


def deep_names(count: int, length: int) -> tuple[bytes, bytes]:
    """Return ``count`` BTF types that all have the same name of ``length`` bytes."""
    return btf_type(1, FWD, 0) * count, b"\0" + b"n" * length + b"\0"


def symbols_with_long_names() -> bytes:
    elf = program()
    names = elf.add(".longnames", b"\0" + b"n" * (4 << 20) + b"\0", kind=SHT_STRTAB)
    record = struct.pack("<IBBHQQ", 1, STB_LOCAL << 4, 0, 0, 0, 0)
    elf.add(".manysyms", record * 60_000, kind=SHT_SYMTAB, link=names, entry_size=24)
    return _without_last_symtab(elf.image())


def _without_last_symtab(data: bytes) -> bytes:
    # The program's own symbols would be a second table, which is refused for that alone.
    table = struct.unpack_from("<Q", data, 40)[0]
    found = [i for i, header in enumerate(sections(data)) if header[1] == SHT_SYMTAB]
    place = table + 64 * found[-1] + 4
    return data[:place] + struct.pack("<I", 1) + data[place + 4 :]


def sections_with_long_names() -> bytes:
    elf = program()
    for _ in range(1000):
        elf.add("x", b"", kind=SHT_NOBITS)
    elf.add("n" * (8 << 20), b"")
    data = bytearray(elf.image())
    table = struct.unpack_from("<Q", data, 40)[0]
    place = sections(bytes(data))[1002][0]
    for index in range(2, 1002):
        struct.pack_into("<I", data, table + 64 * index, place)
    return bytes(data)


def many_data_sections() -> bytes:
    elf = program()
    elf.add(".BTF", btf(btf_type(0, FWD, 0) * 300_000))
    for index in range(900):
        elf.add(f".data.{index}", bytes(8), flags=SHF_ALLOC)
    for _ in range(60_000):
        elf.symbol("v", 3, 0, 8, kind=STT_OBJECT)
    return elf.image()


def many_definitions() -> bytes:
    """A map of maps whose definition has 40000 members, each with an inner definition of 40000 members."""
    strings = b"\0.maps\0m0\0values\0x\0type\0"
    name = {text: strings.index(b"\0" + text + b"\0") + 1 for text in (b".maps", b"m0", b"values", b"type")}
    count = 40_000
    types = [
        btf_type(0, INT, 4, (32,)),
        btf_type(0, ARRAY, 0, (1, 1, 12)),
        btf_type(0, PTR, 2),
        btf_type(0, STRUCT, 8, (name[b"type"], 3, 0) * count, count),
        btf_type(0, PTR, 4),
        btf_type(0, ARRAY, 0, (5, 1, 0)),
        btf_type(0, STRUCT, 8, (name[b"type"], 3, 0) + (name[b"values"], 6, 0) * (count - 1), count),
        btf_type(name[b"m0"], VAR, 7, (1,)),
        btf_type(name[b".maps"], DATASEC, 8, (8, 0, 8), 1),
    ]
    return with_btf(b"".join(types), strings, map_symbols=1)


def one_definition_many_times() -> bytes:
    """40000 maps, all of one type whose definition has 40000 members."""
    strings = b"\0.maps\0m0\0type\0"
    count = 40_000
    types = [
        btf_type(0, INT, 4, (32,)),
        btf_type(0, ARRAY, 0, (1, 1, 1)),
        btf_type(0, PTR, 2),
        btf_type(0, STRUCT, 8, (10, 3, 0) * count, count),
        btf_type(7, VAR, 4, (1,)),
        btf_type(1, DATASEC, 8, (5, 0, 8) * count, count),
    ]
    return with_btf(b"".join(types), strings, map_symbols=1)


def many_calls() -> bytes:
    """250 programs, each of which calls the same function, which calls 30000 others."""
    elf, count, programs = Elf(), 30_000, 250
    text = elf.code(".text", EXIT * count + b"".join(call(i, count + i) for i in range(count)) + EXIT)
    xdp = elf.code("xdp", (instruction(0x85, src=1, imm=-1) + EXIT) * programs)
    elf.symbol("hub", text, 8 * count, 8 * (count + 1))
    for i in range(programs):
        elf.symbol(f"p{i}", xdp, 16 * i, 16)
    for i in range(count):
        elf.symbol(f"f{i}", text, 8 * i, 8)
    records = b"".join(struct.pack("<QII", 16 * i, 10, 1) for i in range(programs))
    elf.add(".relxdp", records, kind=SHT_REL, info=xdp, entry_size=16)
    return elf.image()


def long_loop() -> bytes:
    """A loop of 30000 instructions that moves a stack pointer by one each time it is taken."""
    count = 30_000
    code = instruction(0xBF, dst=2, src=10) + instruction(0x07, dst=2, imm=-1) + instruction(0xB7, dst=3) * count
    return with_code(code + instruction(0x15, dst=3, offset=-(count + 2)) + EXIT)


def many_values() -> bytes:
    """A register that may hold any of 500 pointers, moved by nothing 30000 times in each pass of a loop."""
    step = instruction(0x07, dst=2, imm=-1)
    spread = step + instruction(0x15, dst=3, offset=-2)
    code = instruction(0xBF, dst=2, src=10) + spread + instruction(0x07, dst=2) * 30_000
    return with_code(code + instruction(0x15, dst=3, offset=-30_002) + EXIT)


def calls_with_full_stack() -> bytes:
    """The context in 64 stack slots, and 30000 calls in each of 500 passes of a loop."""
    code = b"".join(instruction(0x7B, dst=10, src=1, offset=-8 * (i + 1)) for i in range(64))
    code += instruction(0xBF, dst=6, src=10) + instruction(0x07, dst=6, imm=-1)
    place, count = len(code) // 8, 30_000
    end = place + count + 2
    code += b"".join(call(end, place + i) for i in range(count)) + instruction(0x15, dst=0, offset=-(count + 2)) + EXIT
    elf = Elf()
    section = elf.code("xdp", code + EXIT)
    elf.symbol("program", section, 0, 8 * end)
    elf.symbol("callee", section, 8 * end, 8)
    return elf.image()


def branches_everywhere() -> bytes:
    """100000 branches, at each of which another stack slot may hold the context."""
    code = b""
    for i in range(50_000):
        code += instruction(0x15, dst=3, offset=1) + instruction(0x7B, dst=10, src=1, offset=-8 * (i % 64 + 1))
    return with_code(code + EXIT)


def every_path_another_state() -> bytes:
    """Seven levels of 20 functions; each puts the context into a slot of its own and calls all of the next level."""
    elf, levels, ways = Elf(), 7, 20
    length = 1 + 2 * ways + 1
    code = b""
    for level in range(levels):
        for way in range(ways):
            code += instruction(0x7B, dst=10, src=1, offset=-8 * (way + 1))
            for next_way in range(ways):
                target = ((level + 1) * ways + next_way) * length
                code += instruction(0x79, dst=1, src=10, offset=-8 * (way + 1))
                code += call(target, len(code) // 8) if level + 1 < levels else instruction(0xB7)
            code += EXIT
    text = elf.code(".text", code)
    xdp = elf.code("xdp", instruction(0x85, src=1, imm=-1) + EXIT)
    elf.symbol("first", text, 0, 8 * length)
    elf.symbol("program", xdp, 0, 16)
    for i in range(1, levels * ways):
        elf.symbol(f"f{i}", text, 8 * length * i, 8 * length)
    elf.add(".relxdp", struct.pack("<QII", 0, 10, 1), kind=SHT_REL, info=xdp, entry_size=16)
    return elf.image()


def many_core_records() -> bytes:
    """400000 records that name one of the 65535 fields of a structure."""
    structure = btf_type(5, STRUCT, 24, (0, 1, 0) * 0xFFFF, 0xFFFF)
    strings = b"\0".join([b"", b"xdp", b"xdp_md", b"0:9", b""])
    return with_core_records(structure, strings, (0, 2, strings.index(b"0:9"), 0), 400_000)


def core_records_with_a_long_path() -> bytes:
    structure = btf_type(5, STRUCT, 24)
    return with_core_records(structure, b"\0xdp\0xdp_md\0" + b":" * (4 << 20) + b"\0", (0, 2, 12, 0), 200_000)


def many_computed_jumps() -> bytes:
    """20000 computed jumps, each of which may lead to any of them."""
    count = 20_000
    code = (instruction(0x15, dst=3, offset=1) + instruction(0x0D, dst=3)) * count + instruction(0x18) * 2 + EXIT
    elf = program(code)
    targets = elf.add(".jumptables", b"".join(struct.pack("<Q", 16 * i) for i in range(count)))
    elf.symbol("table", targets, 0, 8 * count, kind=STT_OBJECT)
    elf.add(".relxdp", struct.pack("<QII", 16 * count, 1, 2), kind=SHT_REL, info=1, entry_size=16)
    return elf.image()


def many_symbols() -> bytes:
    elf = program()
    for i in range(65_000):
        elf.symbol(f"f{i}", 1, 0, 16, kind=STT_OBJECT)
    return elf.image()


def million_instructions() -> bytes:
    return with_code(instruction(0xB7) * 999_998 + RETURN)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: with_btf(*deep_names(300_000, 4 << 20)), id="types-with-long-names"),
        pytest.param(symbols_with_long_names, id="symbols-with-long-names"),
        pytest.param(sections_with_long_names, id="sections-with-long-names"),
        pytest.param(many_data_sections, id="many-data-sections"),
        pytest.param(many_definitions, id="many-inner-definitions"),
        pytest.param(one_definition_many_times, id="one-definition-many-times"),
        pytest.param(many_calls, id="many-calls"),
        pytest.param(long_loop, id="long-loop"),
        pytest.param(many_values, id="many-values"),
        pytest.param(calls_with_full_stack, id="calls-with-a-full-stack"),
        pytest.param(branches_everywhere, id="branches-everywhere"),
        pytest.param(every_path_another_state, id="every-path-another-state"),
        pytest.param(many_core_records, id="many-core-records"),
        pytest.param(core_records_with_a_long_path, id="core-records-with-a-long-path"),
        pytest.param(many_computed_jumps, id="many-computed-jumps"),
        pytest.param(many_symbols, id="many-symbols"),
        pytest.param(million_instructions, id="a-million-instructions"),
    ],
)
def test_object_that_wants_all_resources_gets_few(tmp_path: Path, make):
    path = tmp_path / "object"
    path.write_bytes(make())
    assert path.stat().st_size <= 16 << 20
    command = [sys.executable, "-m", "tests.hostile.derive_facts", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(("facts", "ObjectError"))
