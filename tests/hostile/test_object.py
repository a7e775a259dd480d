"""Objects that no compiler made: facts are derived from them, or one ObjectError says why not."""

import random
import struct
from collections.abc import Callable

import pytest

from tests.elf_forge import EXIT, SHT_REL, SHT_RELA, SHT_SYMTAB, Elf, btf, btf_type, instruction
from tests.hostile.objects import (
    DATASEC,
    INT,
    RETURN,
    STRUCT,
    TYPEDEF,
    VAR,
    object_of,
    outcome,
    program,
    relocated,
    sections,
    with_btf,
    with_code,
    with_core_records,
)

CASES = ("minimal", "many_facts")


@pytest.mark.parametrize("case", CASES)
def test_flipped_bits_give_facts_or_an_object_error(case):
    data, noise = bytearray(object_of(case)), random.Random(case)
    # Debugging information is not read; so only what is.
    places = [p for s in sections(bytes(data)) if not s[6] or s[1] != 1 for p in range(s[4], s[4] + s[5])]
    table = struct.unpack_from("<Q", data, 40)[0]
    places = [place for place in range(len(data)) if place < 64 or place >= table] * 4 + places
    for _ in range(800):
        changes = [(noise.choice(places), 1 << noise.randrange(8)) for _ in range(noise.choice([1, 1, 2, 5]))]
        for place, mask in changes:
            data[place] ^= mask
        outcome(bytes(data))
        for place, mask in changes:
            data[place] ^= mask


INTERESTING = (0, 1, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("region", ["sections", ".BTF", ".BTF.ext", ".symtab", ".strtab", "xdp", "license"])
def test_strange_words_give_facts_or_an_object_error(case, region):
    data = object_of(case)
    headers = sections(data)
    names = headers[struct.unpack_from("<H", data, 62)[0]]
    if region == "sections":
        begin = struct.unpack_from("<Q", data, 40)[0]
        end = len(data)
    else:
        found = [h for h in headers if data[names[4] + h[0] :].split(b"\0", 1)[0].decode() == region]
        begin, end = found[0][4], found[0][4] + found[0][5]
    noise = random.Random(region)
    words = [(place, value) for place in range(begin, end - 3, 4) for value in INTERESTING]
    noise.shuffle(words)
    for place, value in words[:200]:
        outcome(data[:place] + struct.pack("<I", value) + data[place + 4 :])


def test_every_section_of_every_type_gives_facts_or_an_object_error():
    data = bytearray(object_of("minimal"))
    table = struct.unpack_from("<Q", data, 40)[0]
    for index in range(len(sections(bytes(data)))):
        place = table + 64 * index + 4
        before = data[place : place + 4]
        for kind in (*range(20), 0x60000000, 0x6FFF4C03, 0x6FFFFFF6, 0x6FFFFFFD, 0x70000000, 0x70000003, 0x7FFFFFFF):
            data[place : place + 4] = struct.pack("<I", kind)
            outcome(bytes(data))
        data[place : place + 4] = before


def edited(edit: Callable[[Elf], object]) -> bytes:
    elf = program()
    edit(elf)
    return elf.image()


def patched_btf(offset: int, layout: str, value: int) -> bytes:
    section = bytearray(btf(btf_type(0, INT, 4, (32,)), b"\0int\0"))
    struct.pack_into(f"<{layout}", section, offset, value)
    return edited(lambda elf: elf.add(".BTF", bytes(section)))


def extension(header_length: int = 32, core: bytes = b"", length: int | None = None) -> bytes:
    head = struct.pack("<HBBI6I", 0xEB9F, 1, 0, header_length, 0, 0, 0, 0, 0, len(core) if length is None else length)

    def add(elf: Elf) -> None:
        elf.add(".BTF", btf(btf_type(0, INT, 4, (32,)), b"\0xdp\0"))
        elf.add(".BTF.ext", head + core)

    return edited(add)


def core_record(path: bytes) -> bytes:
    """Return a program that reads the context through a CO-RE record with a path."""
    strings = b"\0xdp\0xdp_md\0data\0" + path + b"\0"
    code = instruction(0x61, src=1) + RETURN
    return with_core_records(btf_type(5, STRUCT, 24, (12, 1, 0), 1), strings, (0, 2, 17, 0), code=code)


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        pytest.param(with_code(EXIT[:4] + b"\0"), "whole instructions", id="half-an-instruction"),
        pytest.param(with_code(instruction(0xB7)), "control leaves the function", id="no-exit"),
        pytest.param(with_code(instruction(0x05, offset=100) + EXIT), "control leaves", id="jump-out"),
        pytest.param(with_code(instruction(0x05, offset=-100) + EXIT), "control leaves", id="jump-out-backwards"),
        pytest.param(with_code(instruction(0x15, offset=-2) + EXIT), "control leaves", id="jump-before-the-section"),
        pytest.param(with_code(instruction(0x18) + EXIT), "control leaves", id="ld-imm64-cut-off"),
        pytest.param(with_code(instruction(0x85, src=1, imm=50) + EXIT), "no function begins", id="call-of-nothing"),
        pytest.param(with_code(instruction(0x85, src=1, imm=-1) + EXIT), "8 frames", id="endless-recursion"),
        pytest.param(with_code(instruction(0x85, src=7) + EXIT), "call with source register 7", id="strange-call"),
        pytest.param(
            with_code(instruction(0x79, dst=0, src=1) + EXIT), "reads 8 bytes at offset 0 of xdp_md", id="8-byte-read"
        ),
        pytest.param(with_code(instruction(0x61, src=1, offset=2) + EXIT), "at offset 2 of xdp_md", id="odd-offset"),
        pytest.param(with_code(instruction(0x61, src=1, offset=24) + EXIT), "at offset 24", id="behind-xdp_md"),
        pytest.param(with_code(instruction(0x61, src=1, offset=-4) + EXIT), "at offset -4", id="before-xdp_md"),
        pytest.param(edited(lambda e: e.symbol("f", 1, 8, 16)), "", id="functions-overlap"),
        pytest.param(edited(lambda e: e.symbol("f", 1, 0, 1 << 63)), "function f: bytes 0..", id="function-too-long"),
        pytest.param(edited(lambda e: e.symbol("f", 1, (1 << 64) - 8, 16)), "function f", id="function-u64"),
        pytest.param(edited(lambda e: e.symbol("f", 1, 4, 8)), "function f", id="function-between-instructions"),
        pytest.param(edited(lambda e: e.symbol("f", 900, 0, 8)), "in section 900", id="symbol-in-no-section"),
        pytest.param(edited(lambda e: e.header(3, entry_size=0)), "0-byte entries", id="symbols-of-no-bytes"),
        pytest.param(edited(lambda e: e.header(3, link=77)), "names in section 77", id="symbol-names-nowhere"),
        pytest.param(
            edited(lambda e: e.add(".symtab2", bytes(24), kind=SHT_SYMTAB, entry_size=24)), "", id="two-tables"
        ),
        pytest.param(edited(lambda e: e.header(1, name=1 << 30)), "name at 1073741824", id="section-name-outside"),
        pytest.param(edited(lambda e: e.code("xdp", RETURN)), "two sections of this name", id="two-sections-of-a-name"),
        pytest.param(relocated(SHT_RELA, (0, 1), entry_size=24), "without addends", id="relocations-with-addends"),
        pytest.param(relocated(SHT_REL, (0, 99)), "symbol 99", id="relocation-to-no-symbol"),
        pytest.param(relocated(SHT_REL, (999, 1)), "place 999", id="relocation-outside"),
        pytest.param(relocated(SHT_REL, (0, 1), (0, 1)), "each once", id="relocation-twice"),
        pytest.param(relocated(SHT_REL, (0, 1), entry_size=0), "0-byte entries", id="relocations-of-no-bytes"),
        pytest.param(relocated(SHT_REL, (0, 1), info=99), "for section 99", id="relocations-of-no-section"),
        pytest.param(edited(lambda e: e.add("license", b"\xff\0")), "", id="license-not-ascii"),
        pytest.param(edited(lambda e: e.add("maps", bytes(20))), "section 'maps'", id="legacy-maps"),
        pytest.param(edited(lambda e: e.add(".maps", bytes(8))), "no BTF that describes them", id="maps-without-btf"),
        pytest.param(edited(lambda e: e.add(".BTF", b"")), "0 bytes, a header has 24", id="empty-btf"),
        pytest.param(patched_btf(0, "H", 0x9FEB), "magic", id="btf-of-the-other-endianness"),
        pytest.param(patched_btf(4, "I", 0xFFFFFFFF), "reaches outside", id="btf-header-u32"),
        pytest.param(patched_btf(12, "I", 0xFFFFFFFF), "reaches outside", id="btf-types-u32"),
        pytest.param(patched_btf(20, "I", 0), "string table must", id="btf-without-strings"),
        pytest.param(patched_btf(28, "I", 31 << 24), "kind 31 is unknown", id="btf-kind"),
        pytest.param(patched_btf(28, "I", STRUCT << 24 | 0xFFFF), "truncated", id="btf-struct-cut-off"),
        pytest.param(patched_btf(24, "I", 0x7FFFFFFF), "offset 2147483647", id="btf-name-outside"),
        pytest.param(extension(length=0xFFFFFFFF), "reaches outside", id="btf-ext-u32"),
        pytest.param(extension(header_length=0xFFFFFFF0, core=bytes(4)), "reaches outside", id="btf-ext-header-u32"),
        pytest.param(extension(core=struct.pack("<I", 0) + bytes(8)), "records of 0 bytes", id="btf-ext-record-of-0"),
        pytest.param(
            extension(core=struct.pack("<III", 16, 1, 0xFFFFFFFF)), "truncated", id="btf-ext-more-records-than-bytes"
        ),
        pytest.param(
            extension(core=struct.pack("<IIIIIII", 16, 1, 1, 0, 9, 1, 0)), "type id 9", id="btf-ext-type-outside"
        ),
        pytest.param(core_record(b"0:1"), "reads 4 bytes", id="core-field-that-is-not"),
        pytest.param(core_record(b"0:" + b"9" * 5000), "reads 4 bytes", id="core-field-of-too-many-digits"),
        pytest.param(core_record(b"0:" + "٠".encode()), "reads 4 bytes", id="core-field-in-other-digits"),
        pytest.param(core_record(b"0:\xff"), "not UTF-8", id="core-path-not-utf8"),
        pytest.param(
            with_btf(
                btf_type(1, VAR, 9, (1,)) + btf_type(4, DATASEC, 8, (1, 0, 8), 1), b"\0m0\0.maps\0", map_symbols=1
            ),
            "type id 9",
            id="map-of-a-type-outside",
        ),
        pytest.param(
            with_btf(
                btf_type(0, TYPEDEF, 1) + btf_type(1, VAR, 1, (1,)) + btf_type(4, DATASEC, 8, (2, 0, 8), 1),
                b"\0m0\0.maps\0",
                map_symbols=1,
            ),
            "chain of typedefs has no end",
            id="typedef-of-itself",
        ),
    ],
)
def test_object_with_a_defect_is_refused(data, fragment):
    found = outcome(data)
    assert found
    assert fragment in found
