import struct

import pytest

from tests.elf_forge import (
    EXIT,
    SHF_ALLOC,
    SHT_NOBITS,
    SHT_PROGBITS,
    SHT_REL,
    SHT_RELA,
    SHT_SYMTAB,
    STB_LOCAL,
    STT_OBJECT,
    Elf,
)
from tests.unit.facts_fixtures import PASS, SOURCES, Assembly, clang, object_of
from uxdp_bundle import bpf_object
from uxdp_bundle.bpf_object import STB_WEAK, STT_FUNC, BpfObject
from uxdp_bundle.errors import ObjectError


def minimal() -> Elf:
    elf = Elf()
    elf.symbol("f", elf.code("xdp", EXIT), 0, 8)
    return elf


def test_bpf_object_has_the_sections_symbols_and_license_of_its_source():
    found = object_of(PASS + 'extern void g(void) __ksym __weak; __u64 counter; static __u32 hidden_one SEC(".data");')
    assert found.license == "GPL"
    section = found.section("xdp")
    assert (section.type, section.executable, section.size) == ("SHT_PROGBITS", True, 16)
    (symbol,) = [symbol for symbol in found.symbols if symbol.name == "pass"]
    assert (symbol.type, symbol.bind, symbol.section, symbol.size) == (STT_FUNC, "STB_GLOBAL", section.index, 16)
    assert found.section(".bss").data == b""
    assert found.section(".bss").size == 8
    assert found.section(".absent") is None


def test_bpf_object_weak_and_hidden_symbols_are_told_apart():
    found = object_of(PASS + 'const volatile int one __weak = 1; __attribute__((visibility("hidden"))) int two = 2;')
    symbols = {symbol.name: symbol for symbol in found.symbols}
    assert symbols["one"].bind == STB_WEAK
    assert (symbols["one"].is_hidden, symbols["two"].is_hidden) == (False, True)


def test_bpf_object_relocations_are_those_of_loaded_sections():
    found = BpfObject(clang(SOURCES["map_types"].read_text()))
    names = {found.sections[index].name for index in found.relocations}
    assert names == {"xdp", ".maps"}
    inner = [relocation.symbol.name for relocation in found.relocations[found.section(".maps").index].values()]
    assert inner == ["first_inner", "second_inner", "elsewhere"]


def test_bpf_object_without_symbols_license_and_btf_is_empty():
    found = BpfObject(Elf().image())
    assert (found.symbols, found.relocations, found.license, found.btf, found.btf_ext) == ([], {}, "", None, None)


def test_bpf_object_unknown_types_are_named_by_number():
    elf = Elf()
    index = elf.add("odd", b"12345678", kind=0x70000001)
    elf.symbol("s", index, 0, 8, kind=10, bind=9)
    found = BpfObject(elf.image())
    assert found.section("odd").type == "SHT_0x70000001"
    assert (found.symbols[1].type, found.symbols[1].bind) == ("STT_10", "STB_9")


def test_bpf_object_license_ends_at_its_zero_byte():
    elf = minimal()
    elf.add("license", b"GPL\0rest")
    assert BpfObject(elf.image()).license == "GPL"


@pytest.mark.parametrize("text", [b"\xffGPL\0", b"G\x1bL\0", b"G\nL\0"], ids=["not-ascii", "escape", "newline"])
def test_bpf_object_unprintable_license_raises_object_error(text):
    elf = minimal()
    elf.add("license", text)
    with pytest.raises(ObjectError, match="not printable ASCII"):
        _ = BpfObject(elf.image()).license


def forged(change) -> bytes:
    elf = minimal()
    change(elf)
    return elf.image()


def two_symbol_tables(elf: Elf) -> None:
    elf.add("second", bytes(24), kind=SHT_SYMTAB, entry_size=24)


def relocations(elf: Elf, *entries: tuple[int, int], kind: int = SHT_REL, info: int = 1, entry_size: int = 16) -> None:
    data = b"".join(struct.pack("<QII", offset, 10, symbol) for offset, symbol in entries)
    elf.add(".relxdp", data, kind=kind, info=info, entry_size=entry_size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda elf: elf.header(1, size=7), "7 bytes; expected SHT_PROGBITS of whole", id="cut-instruction"
        ),
        pytest.param(lambda elf: elf.header(1, type=SHT_NOBITS), "expected SHT_PROGBITS of whole", id="code-of-zeros"),
        pytest.param(lambda elf: elf.header(1, name=1 << 20), r"section\[1\]: name at 1048576", id="name-outside"),
        pytest.param(lambda elf: elf.add("xdp", EXIT), "section xdp: there are two", id="two-of-a-name"),
        pytest.param(two_symbol_tables, "two symbol tables", id="two-symbol-tables"),
        pytest.param(lambda elf: elf.header(3, entry_size=16), "16-byte entries", id="symbol-size"),
        pytest.param(lambda elf: elf.header(3, size=47), "47 bytes of 24-byte entries", id="cut-symbol"),
        pytest.param(lambda elf: elf.header(3, link=99), "names in section 99", id="no-symbol-names"),
        pytest.param(lambda elf: elf.symbol("g", 99, 0, 0), r"symbol\[2\]: in section 99", id="symbol-section"),
        pytest.param(lambda elf: relocations(elf, (0, 5)), "place 0 of 8 bytes, symbol 5 of 2", id="no-such-symbol"),
        pytest.param(lambda elf: relocations(elf, (8, 1)), "place 8 of 8 bytes", id="place-outside"),
        pytest.param(lambda elf: relocations(elf, (0, 1), (0, 1)), "each once", id="place-twice"),
        pytest.param(lambda elf: relocations(elf, (0, 1), info=99), "for section 99", id="no-such-section"),
        pytest.param(lambda elf: relocations(elf, (0, 1), kind=SHT_RELA), "without addends", id="addends"),
        pytest.param(lambda elf: relocations(elf, (0, 1), entry_size=24), "24-byte entries", id="relocation-size"),
        pytest.param(lambda elf: (relocations(elf), relocations(elf)), "expected one table", id="two-tables"),
    ],
)
def test_bpf_object_malformed_raises_object_error(change, message):
    with pytest.raises(ObjectError, match=message):
        BpfObject(forged(change))


def test_bpf_object_relocations_of_what_is_not_loaded_are_not_read():
    elf = minimal()
    debug = elf.add(".debug_info", b"12345678")
    relocations(elf, (99, 99), info=debug)
    assert BpfObject(elf.image()).relocations == {}


def test_bpf_object_section_name_that_is_not_utf8_raises_object_error():
    image = minimal().image().replace(b"xdp\0", b"\xff\xff\xff\0")
    with pytest.raises(ObjectError, match="name is not UTF-8"):
        BpfObject(image)


def test_bpf_object_names_without_end_raise_object_error():
    elf = minimal()
    image = bytearray(elf.image())
    # The names are the last section; cut the zero byte off.
    (table,) = struct.unpack_from("<Q", image, 40)
    (count,) = struct.unpack_from("<H", image, 60)
    place = table + (count - 1) * 64 + 32
    (size,) = struct.unpack_from("<Q", image, place)
    struct.pack_into("<Q", image, place, size - 1)
    with pytest.raises(ObjectError, match="bytes of names"):
        BpfObject(bytes(image))


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_INSTRUCTIONS", 1, "more than 1 instructions"),
        ("MAX_SYMBOLS", 1, "expected at most 1 of 24 bytes"),
        ("MAX_RELOCATIONS", 0, "expected at most 0 of 16 bytes"),
    ],
)
def test_bpf_object_over_a_limit_raises_object_error(monkeypatch, limit, value, message):
    image = Assembly().function("f", EXIT, EXIT).extern("g").relocate(0, "g").image()
    BpfObject(image)
    monkeypatch.setattr(bpf_object, limit, value)
    with pytest.raises(ObjectError, match=message):
        BpfObject(image)


def test_bpf_object_symbols_outside_of_sections_keep_their_special_index():
    elf = minimal()
    elf.symbol("absolute", 0xFFF1, 7, 0, kind=STT_OBJECT, bind=STB_LOCAL)
    assert BpfObject(elf.image()).symbols[-1].section == 0xFFF1


def test_bpf_object_alloc_section_may_be_any_data():
    elf = minimal()
    data = elf.add(".data", b"12345678", kind=SHT_PROGBITS, flags=SHF_ALLOC)
    relocations(elf, (0, 1), info=data)
    assert list(BpfObject(elf.image()).relocations) == [data]
