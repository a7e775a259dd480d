import struct

import pytest

from tests.elf_forge import Elf
from uxdp_bundle.elf_extent import MAX_SECTIONS, check_extent
from uxdp_bundle.errors import ObjectError


def check(data: bytes) -> None:
    check_extent(memoryview(data))


def object_with_two_sections() -> Elf:
    elf = Elf()
    elf.add("one", b"1" * 24)
    elf.add("two", b"2" * 8)
    return elf


def test_check_extent_sound_object_passes():
    check(object_with_two_sections().image())


def test_check_extent_null_section_alone_passes():
    check(Elf(names=False).image())


def test_check_extent_section_that_ends_the_object_passes():
    check(object_with_two_sections().image(table_first=True))


def test_check_extent_nobits_and_null_sections_have_no_bytes():
    elf = Elf()
    elf.add(".bss", b"", kind=8)
    elf.header(1, size=1 << 60, offset=1 << 60)
    elf.header(0, size=1 << 60, offset=1 << 60)
    check(elf.image())


def test_check_extent_empty_section_may_stand_anywhere_inside():
    elf = object_with_two_sections()
    elf.add("empty", b"")
    elf.header(3, offset=70)
    check(elf.image())


def patched(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(object_with_two_sections().image())
    struct.pack_into(f"<{layout}", data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "context", "fragment"),
    [
        pytest.param(b"", "object", "0 bytes, an ELF header has 64", id="empty"),
        pytest.param(object_with_two_sections().image()[:63], "object", "63 bytes", id="cut-header"),
        pytest.param(patched(0, "B", 0), "object", "expected a little-endian ELF64", id="magic"),
        pytest.param(patched(4, "B", 1), "object", "7f454c46010101", id="32-bit"),
        pytest.param(patched(5, "B", 2), "object", "7f454c46020201", id="big-endian"),
        pytest.param(patched(6, "B", 0), "object", "7f454c46020100", id="ident-version"),
        pytest.param(patched(16, "H", 2), "object", "ELF type 2", id="executable"),
        pytest.param(patched(18, "H", 62), "object", "machine 62", id="x86-64"),
        pytest.param(patched(32, "Q", 64), "object.e_phnum", "no program headers", id="program-header-offset"),
        pytest.param(patched(56, "H", 1), "object.e_phnum", "no program headers", id="program-header-count"),
        pytest.param(patched(52, "H", 52), "object.e_phnum", "64-byte header", id="header-size"),
        pytest.param(patched(58, "H", 40), "object.e_shnum", "sections of 40 bytes", id="section-header-size"),
        pytest.param(patched(60, "H", 0), "object.e_shnum", "0 sections", id="no-sections"),
        pytest.param(patched(60, "H", MAX_SECTIONS + 1), "object.e_shnum", "1025 sections", id="too-many-sections"),
        pytest.param(patched(62, "H", 4), "object.e_shnum", "names in 4", id="names-outside-of-table"),
        pytest.param(patched(62, "H", 0xFFFF), "object.e_shnum", "names in 65535", id="names-in-reserved-section"),
        pytest.param(patched(40, "Q", 0), "object.e_shoff", "table at 0..", id="table-in-header"),
        pytest.param(patched(40, "Q", 1 << 40), "object.e_shoff", "the object has", id="table-outside"),
        pytest.param(patched(40, "Q", (1 << 64) - 1), "object.e_shoff", "table at 18446744073709551615..", id="u64"),
        pytest.param(patched(60, "H", 5), "object.e_shoff", "the object has", id="table-ends-outside"),
        pytest.param(object_with_two_sections().image() + b"\0", "object", "1 bytes follow", id="trailing-byte"),
        pytest.param(object_with_two_sections().image() * 2, "object", "bytes follow the last", id="object-twice"),
    ],
)
def test_check_extent_malformed_header_raises(data, context, fragment):
    with pytest.raises(ObjectError) as caught:
        check(data)
    assert caught.value.context == context
    assert fragment in caught.value.message


@pytest.mark.parametrize(
    ("index", "fields", "fragment"),
    [
        pytest.param(2, {"size": 1 << 30}, "the object has", id="size-outside"),
        pytest.param(2, {"offset": 1 << 30}, "the object has", id="offset-outside"),
        pytest.param(2, {"offset": (1 << 64) - 8, "size": 16}, "08..18446744073709551624", id="wraps"),
        pytest.param(2, {"size": (1 << 64) - 64}, "the object has", id="u64-size"),
        pytest.param(2, {"offset": 64}, "overlap", id="section-in-section"),
        pytest.param(2, {"offset": 60}, "overlap what comes before, up to 64", id="section-in-header"),
        pytest.param(1, {"offset": 80}, "overlap", id="ends-in-the-next"),
    ],
)
def test_check_extent_section_elsewhere_raises(index, fields, fragment):
    elf = object_with_two_sections()
    elf.header(index, **fields)
    with pytest.raises(ObjectError) as caught:
        check(elf.image())
    assert caught.value.context.startswith("object.section[")
    assert fragment in caught.value.message


def test_check_extent_section_in_section_table_raises():
    elf = object_with_two_sections()
    (table,) = struct.unpack_from("<Q", elf.image(), 40)
    elf.header(2, offset=table + 8)
    with pytest.raises(ObjectError, match=r"object\.section\[2\].*overlap"):
        check(elf.image())
