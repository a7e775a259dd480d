import struct

import pytest

from tests.elf_forge import btf, btf_type
from tests.unit.facts_fixtures import HEADER, PASS, clang, object_of
from uxdp_bundle import btf as btf_module
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.btf import Btf, BtfExt, Kind
from uxdp_bundle.errors import ObjectError

STRINGS = b"\0one\0two\0"
ONE, TWO = 1, 5
INT = btf_type(ONE, Kind.INT, 4, (32,))


def types_of(*types: bytes, strings: bytes = STRINGS) -> Btf:
    return Btf(btf(b"".join(types), strings))


def ext(*, lines: bytes = b"", core: bytes = b"", header_length: int = 32, magic: int = 0xEB9F) -> bytes:
    """Return a .BTF.ext section with these tables."""
    head = struct.pack("<HBBI6I", magic, 1, 0, header_length, 0, 0, 0, len(lines), len(lines), len(core))
    return head[:header_length].ljust(header_length, b"\0") + lines + core


def table(*records: tuple[int, ...], section: int = ONE, size: int = 16, count: int | None = None) -> bytes:
    head = struct.pack("<III", size, section, len(records) if count is None else count)
    return head + b"".join(struct.pack(f"<{len(record)}I", *record) for record in records)


EVERYTHING = """
struct inner { char c; };
struct outer { int bits : 3; unsigned more : 5; struct inner inner[2]; const volatile struct outer *next; };
union both { long l; float f; };
typedef struct outer outer_t;
enum small { A = 1 };
enum big { B = 0x1234567890ULL };
typedef const volatile outer_t *restrict pointer_t;
const volatile struct outer one;
outer_t two[2][3];
union both three;
enum small four;
enum big five;
pointer_t six;
void *seven;
void (*eight)(int);
struct { int x; } nine;
_Bool ten;
struct forward *eleven;
int __attribute__((btf_type_tag("mine"))) *twelve;
"""


@pytest.fixture(scope="module")
def everything() -> BpfObject:
    return object_of(PASS + EVERYTHING)


@pytest.mark.parametrize(
    ("name", "size", "spelled"),
    [
        ("one", 16, "struct outer"),
        ("two", 96, "outer_t[2][3]"),
        ("three", 8, "union both"),
        ("four", 4, "enum small"),
        ("five", 8, "enum big"),
        ("six", 8, "pointer_t"),
        ("seven", 8, "void *"),
        ("eight", 8, "(anonymous) *"),
        ("nine", 4, "struct (anonymous)"),
        ("ten", 1, "_Bool"),
        ("eleven", 8, "struct forward *"),
        ("twelve", 8, "int *"),
    ],
)
def test_btf_variable_has_the_size_and_type_of_its_source(everything, name, size, spelled):
    found = everything.btf
    (variable,) = [item for item in found.types if item.kind is Kind.VAR and item.name == name]
    assert (found.size(variable.size_or_type), found.spell(variable.size_or_type)) == (size, spelled)


def test_btf_members_have_names_types_and_offsets(everything):
    found = everything.btf
    (outer,) = [item for item in found.types if item.kind is Kind.STRUCT and item.name == "outer"]
    members = [(name, found.spell(type_id), offset) for name, type_id, offset in found.members(outer)]
    assert members == [
        ("bits", "int", 0),
        ("more", "unsigned int", 3),
        ("inner", "struct inner[2]", 8),
        ("next", "struct outer *", 64),
    ]


def test_btf_data_section_lists_its_variables(everything):
    assert [variable.name for variable in everything.btf.data_section("license")] == ["_license"]
    assert everything.btf.data_section(".absent") == []


def test_btf_resolve_skips_what_does_not_change_a_type():
    found = types_of(INT, btf_type(TWO, Kind.TYPEDEF, 3), btf_type(0, Kind.CONST, 4), btf_type(0, Kind.VOLATILE, 1))
    assert found.resolve(2).name == "one"
    assert found.resolve_id(2) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "0 bytes, a header has 24", id="empty"),
        pytest.param(btf(INT)[:23], "23 bytes", id="cut-header"),
        pytest.param(b"\0\0" + btf(INT)[2:], "magic 0x0", id="magic"),
        pytest.param(btf(INT)[:2] + b"\2" + btf(INT)[3:], "version 2", id="version"),
        pytest.param(btf(INT, STRINGS)[:-1], "reaches outside", id="cut-strings"),
        pytest.param(btf(INT, b""), "begin and end with a zero byte", id="no-strings"),
        pytest.param(btf(INT, b"one\0"), "begin and end with a zero byte", id="strings-begin-wrongly"),
        pytest.param(btf(INT, b"\0one"), "begin and end with a zero byte", id="strings-end-wrongly"),
        pytest.param(btf(INT[:8], STRINGS), r"type\[1\]: truncated", id="cut-type"),
        pytest.param(btf(INT[:12], STRINGS), r"type\[1\]: truncated", id="cut-words"),
        pytest.param(btf(btf_type(0, Kind.STRUCT, 4, vlen=60_000), STRINGS), "truncated", id="cut-members"),
        pytest.param(btf(btf_type(0, 0, 4), STRINGS), "kind 0 is unknown", id="void"),
        pytest.param(btf(btf_type(0, 20, 4), STRINGS), "kind 20 is unknown", id="unknown-kind"),
        pytest.param(btf(btf_type(99, Kind.PTR, 0), STRINGS), "string offset 99", id="name-outside"),
        pytest.param(btf(btf_type(1, Kind.PTR, 0), b"\0\xff\0"), "not UTF-8", id="name-not-utf8"),
    ],
)
def test_btf_malformed_raises_object_error(data, message):
    with pytest.raises(ObjectError, match=message) as caught:
        Btf(data)
    assert caught.value.context.startswith(".BTF")


def test_btf_header_shorter_than_its_own_raises_object_error():
    data = bytearray(btf(INT, STRINGS))
    struct.pack_into("<I", data, 4, 20)
    with pytest.raises(ObjectError, match="reaches outside"):
        Btf(bytes(data))


def test_btf_too_many_types_raises_object_error(monkeypatch):
    monkeypatch.setattr(btf_module, "MAX_TYPES", 3)
    with pytest.raises(ObjectError, match="more than 3 types"):
        types_of(*[btf_type(0, Kind.PTR, 0)] * 4)


ENDLESS_ARRAY = btf_type(0, Kind.ARRAY, 0, (1, 1, 2))


@pytest.mark.parametrize(
    ("types", "call", "message"),
    [
        pytest.param([btf_type(0, Kind.CONST, 1)], "resolve", "no end", id="typedef-of-itself"),
        pytest.param([btf_type(0, Kind.CONST, 9)], "resolve", "type id 9, there are 2", id="no-such-type"),
        pytest.param([ENDLESS_ARRAY], "size", "without a size", id="array-of-itself"),
        pytest.param([btf_type(0, Kind.FUNC_PROTO, 0)], "size", "without a size", id="size-of-function"),
        pytest.param([btf_type(0, Kind.CONST, 0)], "size", "without a size", id="size-of-void"),
        pytest.param([btf_type(ONE, Kind.FWD, 0)], "size", "without a size", id="size-of-forward"),
        pytest.param([ENDLESS_ARRAY], "spell", "no end", id="spelling-of-itself"),
        pytest.param([btf_type(0, Kind.PTR, 1)], "spell", "no end", id="pointer-to-itself"),
    ],
)
def test_btf_impossible_type_raises_object_error(types, call, message):
    with pytest.raises(ObjectError, match=message):
        getattr(types_of(*types), call)(1)


def test_btf_data_section_of_something_else_raises_object_error():
    found = types_of(INT, btf_type(ONE, Kind.DATASEC, 4, (1, 0, 4), vlen=1))
    with pytest.raises(ObjectError, match="neither variable nor function"):
        found.data_section("one")


def test_btf_ext_lines_name_the_source():
    source = HEADER + 'SEC("xdp")\nint f(struct xdp_md *ctx)\n{\n\treturn ctx->data\n\t       == ctx->data_end;\n}\n'
    found = BpfObject(clang(source))
    section = found.section("xdp")
    lines = [found.line_at(section, slot * 8) for slot in range(section.size // 8)]
    first = HEADER.count("\n") + 4
    assert {line.line for line in lines} >= {first, first + 1}
    assert str(lines[0]).startswith("./<stdin>:")
    assert found.line_at(found.section("license"), 0) is None


def test_btf_ext_text_and_column_of_a_line():
    record = (16, ONE, TWO, 7 << 10 | 3)
    found = BtfExt(ext(lines=table(record)), types_of(INT))
    assert found.line_at("one", 8) is None
    line = found.line_at("one", 24)
    assert (line.file, line.line, line.column, line.text) == ("one", 7, 3, "two")
    assert found.line_at("two", 24) is None


def test_btf_ext_records_may_be_longer_than_what_is_read():
    record = (16, ONE, TWO, 7 << 10, 1, 2)
    assert BtfExt(ext(lines=table(record, size=24)), types_of(INT)).line_at("one", 16).line == 7


def test_btf_ext_core_records_are_found_by_section():
    found = BtfExt(ext(core=table((8, 1, ONE, 0))), types_of(INT))
    assert found.core_relocations == {"one": [(8, 1, ONE, 0)]}


def test_btf_ext_header_from_before_core_has_no_records():
    assert BtfExt(ext(header_length=24), types_of(INT)).core_relocations == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\0" * 23, "23 bytes are too short", id="short"),
        pytest.param(ext(magic=1), "magic 0x1", id="magic"),
        pytest.param(ext(lines=table((0, 0, 0, 0)))[:-1], "reaches outside", id="cut"),
        pytest.param(ext(lines=b"\0\0"), "reaches outside", id="no-record-size"),
        pytest.param(ext(lines=table(size=12)), "records of 12 bytes", id="small-records"),
        pytest.param(ext(lines=table(size=18)), "records of 18 bytes", id="odd-records"),
        pytest.param(ext(lines=table(size=512)), "records of 512 bytes", id="huge-records"),
        pytest.param(ext(lines=table(count=2)), "truncated", id="fewer-than-counted"),
        pytest.param(ext(lines=table() + b"\0" * 4), "truncated", id="cut-section"),
        pytest.param(ext(lines=table(section=77)), "string offset 77", id="name-outside"),
    ],
)
def test_btf_ext_malformed_raises_object_error(data, message):
    with pytest.raises(ObjectError, match=message):
        BtfExt(data, types_of(INT))


def forward(*names: int, pointers: tuple[int, ...]) -> Btf:
    """Return types: forward declarations (from id 2 on), and pointers to them."""
    declared = [btf_type(name, Kind.FWD, 0) for name in names]
    return types_of(INT, *declared, *(btf_type(0, Kind.PTR, target) for target in pointers))


def test_btf_meaning_does_not_depend_on_the_order_of_forward_declarations():
    assert forward(ONE, TWO, pointers=(2, 3)).meaning() == forward(TWO, ONE, pointers=(3, 2)).meaning()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(forward(TWO, ONE, pointers=(2, 3)), id="pointers-to-others"),
        pytest.param(forward(ONE, ONE, pointers=(2, 3)), id="another-declaration"),
        pytest.param(forward(ONE, TWO, pointers=(2, 1)), id="pointer-to-a-type"),
        pytest.param(forward(ONE, TWO, pointers=(2,)), id="one-fewer"),
    ],
)
def test_btf_meaning_of_other_types_is_another(other):
    assert forward(ONE, TWO, pointers=(2, 3)).meaning() != other.meaning()


def test_btf_meaning_does_not_depend_on_where_strings_stand():
    moved = b"\0two\0one\0"
    structure = btf_type(ONE, Kind.STRUCT, 4, (TWO, 1, 0), 1)
    same = btf_type(TWO, Kind.STRUCT, 4, (ONE, 1, 0), 1)
    integer = btf_type(TWO, Kind.INT, 4, (32,))
    assert types_of(INT, structure).meaning() == types_of(integer, same, strings=moved).meaning()
    assert types_of(INT, structure).meaning() != types_of(INT, structure, strings=moved).meaning()


def test_btf_ext_meaning_names_what_its_records_refer_to():
    btf_of = types_of(INT)
    meaning = BtfExt(ext(lines=table((8, ONE, TWO, 7)), core=table((8, 1, ONE, 0))), btf_of).meaning()
    assert meaning == {"one": [(8, "one", "two", 7), (8, 1, "one", 0)]}


def test_btf_ext_meaning_includes_functions():
    functions = table((0, 1), size=8)
    head = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, len(functions), len(functions), 0, len(functions), 0)
    assert BtfExt(head + functions, types_of(INT)).meaning() == {"one": [(0, 1)]}


def test_btf_string_that_is_no_name_raises_object_error():
    found = types_of(btf_type(0, Kind.PTR, 0), strings=b"\0" + b"x" * 1025 + b"\0")
    assert len(found.text(1)) == 1025
    assert len(found.string(2)) == 1024
    with pytest.raises(ObjectError, match="name of 1025 bytes, at most 1024 allowed"):
        found.string(1)


def test_btf_text_is_decoded_only_so_often(monkeypatch):
    found = types_of(btf_type(0, Kind.PTR, 0), strings=b"\0" + b"x" * 100 + b"\0")
    monkeypatch.setattr(btf_module, "MAX_TEXT_BYTES", 250)
    for offset in (1, 1, 1, 2, 2):
        found.text(offset)
    with pytest.raises(ObjectError, match="strings of more than 250 bytes"):
        found.text(3)
