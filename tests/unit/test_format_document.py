"""FORMAT.md is enough to write a reader, its example and tables are current, and reader and code agree."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import uxdp_bundle
from tests import format_example, independent_reader
from tests.bundle_factory import AUDITOR, PUBLISHER, Forgery, signed_case
from tests.independent_reader import KIB, MIB, Refused, read
from uxdp_bundle import (
    bpf_object,
    btf,
    canonical,
    container,
    elf_extent,
    instructions,
    manifest,
    map_definitions,
    native_code,
    shim,
    signature,
)
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.facts import object_facts

DOCUMENT = Path(uxdp_bundle.__file__).with_name("FORMAT.md").read_text()


def test_independent_reader_imports_nothing_of_uxdp():
    tree = ast.parse(Path(independent_reader.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.startswith(("uxdp", "tests"))}


@pytest.mark.parametrize("case", ["minimal", "many_facts"])
def test_independent_reader_agrees_about_a_real_bundle(case):
    image = Forgery(signed_case(case, embed_sources=True)).image(keys=[PUBLISHER, AUDITOR])
    found = read(image)
    assert found["keys"] == [PUBLISHER.public.text, AUDITOR.public.text]
    with bundle_from_bytes(image) as bundle:
        assert found["bundle_id"] == bundle.bundle_id
        assert found["manifest"] == {"schema": 1, **manifest.to_json(bundle.manifest)}
        for (role, name), content in found["contents"].items():
            assert content == bundle.member(role, name)
        assert found["contents"]["source", f"{case}.c"]
        facts = object_facts(bundle.object)
    assert found["accesses"] == [(a.section, a.offset, a.field) for a in facts.accesses]
    assert found["manifest"]["programs"] == manifest.to_json(facts.programs)
    assert found["manifest"]["xdp_md"] == sorted({field for _, _, field in found["accesses"]})


def test_independent_reader_reads_the_example():
    found = read(format_example.example_bundle())
    assert found["accesses"] == [("xdp.frags", 0, "data_end"), ("xdp.frags", 8, "data")]
    assert len(found["keys"]) == 1


@pytest.mark.parametrize("place", [0, 5000, -600, -300, -64, -1])
def test_independent_reader_refuses_a_flipped_bit(minimal_image, place):
    damaged = bytearray(minimal_image)
    damaged[place] ^= 1
    with pytest.raises(Refused):
        read(bytes(damaged))


def test_example_in_the_document_is_current():
    _head, _mark, example = DOCUMENT.partition(format_example.MARK)
    assert example == format_example.example_text(), "run: python -m tests.format_example --write"


def section(title: str) -> str:
    """Return the text of a section of the document."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def table(text: str) -> list[list[str]]:
    """Return the cells of the first table in a text, without its head."""
    rows = text[text.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_limits_in_the_document_are_the_code_s():
    units = {"": 1, "KiB": KIB, "MiB": MIB}
    limits = {}
    for what, most in table(section("2.2 Limits")):
        number, _, unit = most.partition(" ")
        limits[what] = int(number) * units[unit]
    assert limits == {
        "file": container.MAX_FILE_BYTES,
        "object": container.MAX_OBJECT_BYTES,
        "member, unpacked": container.MAX_UNPACKED_BYTES,
        "manifest": manifest.MAX_MANIFEST_BYTES,
        "signatures": container.MAX_SIGNATURES_BYTES,
        "signatures, number of": signature.MAX_SIGNATURES,
        "members": manifest.MAX_MEMBERS,
        "programs": manifest.MAX_PROGRAMS,
        "maps": manifest.MAX_MAPS,
        "params": manifest.MAX_PARAMS,
        "build.sources": 4096,
        "nesting of JSON arrays and objects": canonical.MAX_DEPTH,
        "ELF sections": elf_extent.MAX_SECTIONS,
    }


def test_trailer_in_the_document_is_64_bytes_without_a_gap():
    rows = table(section("2.1 Trailer"))
    position = 0
    for offset, size, *_ in rows:
        assert int(offset) == position
        position += int(size)
    assert position == container.TRAILER_BYTES
    assert bytes.fromhex(rows[0][3]) == container.MAGIC


def test_roles_in_the_document_are_the_code_s():
    rows = table(section("5. Members"))
    assert tuple(row[0] for row in rows) == manifest.ROLES
    media_types = {row[0]: row[3] for row in rows}
    assert media_types["object"] == container.OBJECT_MEDIA_TYPE
    assert media_types["ir"] == container.IR_MEDIA_TYPE
    assert media_types["shim"] == container.SHIM_MEDIA_TYPE
    assert media_types["native"] == native_code.NATIVE_MEDIA_TYPE


def test_native_code_in_the_document_is_the_code_s():
    assert {row[0] for row in table(section("5.1 Native code"))} == native_code.KEYS
    assert native_code.MAX_DESCRIPTION_BYTES == 256 * KIB


def test_independent_reader_reads_native_code():
    code = native_code.NativeCode(
        program="minimal",
        machine="aarch64",
        cpu="generic",
        features=("fp-armv8", "neon"),
        llvm="22.1.0",
        library="00" * 32,
        object="11" * 32,
        maps="22" * 32,
        values={"llvm.xdp_md:0:4$0:1": 4},
        data=bytes.fromhex("7f454c46020101").ljust(16, b"\0") + b"\1\0\xb7\0",
    )
    with bundle_from_bytes(signed_case("minimal")) as bundle:
        image = bundle.with_members([code.content()])
    found = read(image)
    assert found["keys"] == []
    (name,) = found["native"]
    description, elf = found["native"][name]
    assert (name, elf) == (code.name, code.data)
    assert description == {key: manifest.to_json(getattr(code, key)) for key in native_code.KEYS}
    with bundle_from_bytes(image) as bundle:
        assert native_code.parse_native_code(bundle.member("native"), name, context="native") == code
    for damage in ({"cpu": "a b"}, {"machine": "riscv64"}, {"features": ("b", "a")}, {"library": "00"}):
        with bundle_from_bytes(signed_case("minimal")) as bundle, pytest.raises(Refused, match=r"4|5\.1"):
            read(bundle.with_members([dataclasses.replace(code, **damage).content()]))


def test_native_xdp_md_in_the_document_is_the_code_s():
    rows = table(section("7. The shim"))
    assert {row[0]: (int(row[2]), int(row[3])) for row in rows} == shim.NATIVE_XDP_MD
    assert [int(row[1]) for row in rows] == list(range(len(shim.XDP_MD_FIELDS)))


def test_map_types_in_the_document_are_the_code_s():
    text = " ".join(section("8.3 Maps").split())
    found = re.search(r"from n = 1: (.*?); others `type#n`", text)
    assert found is not None
    assert tuple(found[1].split(", ")) == map_definitions.MAP_TYPES[1:]


def test_object_limits_in_the_document_are_the_code_s():
    text = " ".join(section("8. Derived facts").split())
    assert "10⁶ instructions, 2¹⁶ symbols, 2¹⁸ relocations" in text
    assert bpf_object.MAX_INSTRUCTIONS == 10**6
    assert bpf_object.MAX_SYMBOLS == 2**16
    assert bpf_object.MAX_RELOCATIONS == 2**18
    assert "2²⁰ BTF types, 256 functions reached" in text
    assert btf.MAX_TYPES == 2**20
    assert instructions.MAX_FUNCTIONS == 256
    assert "names of 1024 bytes" in text
    assert bpf_object.MAX_NAME_BYTES == btf.MAX_NAME_BYTES == 1024


def test_manifest_keys_in_the_document_are_the_code_s():
    assert {row[0] for row in table(section("4. Manifest"))} | {"map_extra"} == manifest.UNDERSTOOD
