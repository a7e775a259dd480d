"""Native code in a bundle: what is written is read, and nothing else is."""

import dataclasses
import struct

import pytest

from tests.bundle_factory import Forgery, canonical_json, signed_case
from uxdp_bundle.container import Content, bundle_from_bytes
from uxdp_bundle.errors import BundleFormatError
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.native_code import NativeCode, maps_digest, parse_native_code

CODE = NativeCode(
    program="nf_main",
    machine="x86_64",
    cpu="x86-64-v3",
    features=("avx", "avx2"),
    llvm="22.1.0",
    library="ab" * 32,
    object="cd" * 32,
    maps="ef" * 32,
    values={"llvm.xdp_md:0:4$0:1": 4},
    data=b"\x7fELF and so on",
)
DESCRIPTION = {
    "cpu": "x86-64-v3",
    "features": ["avx", "avx2"],
    "library": "ab" * 32,
    "llvm": "22.1.0",
    "machine": "x86_64",
    "maps": "ef" * 32,
    "object": "cd" * 32,
    "program": "nf_main",
    "values": {"llvm.xdp_md:0:4$0:1": 4},
}


def member(description: object, length: int | None = None) -> bytes:
    encoded = canonical_json(description)
    return struct.pack("<I", len(encoded) if length is None else length) + encoded + CODE.data


def test_native_code_is_written_as_the_document_says():
    content = CODE.content()
    assert (content.role, content.name, content.compression) == ("native", "nf_main/x86_64/x86-64-v3", "zstd")
    assert content.data == member(DESCRIPTION)
    assert parse_native_code(content.data, content.name, context="x") == CODE


@pytest.mark.parametrize(
    ("data", "match"),
    [
        pytest.param(b"\0\0\0", "too short", id="short"),
        pytest.param(member(DESCRIPTION, length=4096), "4096", id="outside"),
        pytest.param(member(DESCRIPTION, length=0xFFFFFFFF), "4294967295", id="huge"),
        pytest.param(member([1]), "JSON list", id="no-object"),
        pytest.param(member(DESCRIPTION | {"more": 1}), "more: unknown key", id="unknown-key"),
        pytest.param(member({k: v for k, v in DESCRIPTION.items() if k != "maps"}), "maps: missing", id="missing"),
        pytest.param(member(DESCRIPTION | {"machine": "riscv64"}), "riscv64", id="machine"),
        pytest.param(member(DESCRIPTION | {"cpu": "x86 64"}), "cpu", id="cpu"),
        pytest.param(member(DESCRIPTION | {"cpu": 64}), "cpu", id="cpu-type"),
        pytest.param(member(DESCRIPTION | {"library": "ab"}), "library", id="digest"),
        pytest.param(member(DESCRIPTION | {"program": "a\nb"}), "program", id="program"),
        pytest.param(member(DESCRIPTION | {"program": None}), "program", id="program-type"),
        pytest.param(member(DESCRIPTION | {"features": ["b", "a"]}), "features", id="unsorted"),
        pytest.param(member(DESCRIPTION | {"features": ["a", "a"]}), "features", id="twice"),
        pytest.param(member(DESCRIPTION | {"features": [1]}), "features", id="feature-type"),
        pytest.param(member(DESCRIPTION | {"values": {"a": "4"}}), "values", id="value-type"),
        pytest.param(member(DESCRIPTION | {"values": []}), "values", id="values-type"),
        pytest.param(member(DESCRIPTION | {"cpu": "znver3"}), "is called", id="name"),
    ],
)
def test_parse_malformed_raises(data, match):
    with pytest.raises(BundleFormatError, match=match):
        parse_native_code(data, CODE.name, context="member")


def test_maps_digest_depends_on_every_field():
    definition = MapDefinition("flows", "hash", 4, 8, 16, 0, False, None)
    digests = {maps_digest((definition,)), maps_digest(()), maps_digest((definition, definition))}
    for change in ({"max_entries": 17}, {"type": "lru_hash"}, {"flags": 1}, {"inner": definition}):
        digests.add(maps_digest((dataclasses.replace(definition, **change),)))
    assert len(digests) == 7


# with_members


def test_with_members_keeps_what_is_there_and_drops_signatures():
    forged = Forgery(signed_case("many_facts", embed_sources=True))
    forged.manifest["x-extension"] = {"of": "another version"}
    with bundle_from_bytes(forged.image()) as bundle:
        image = bundle.with_members([CODE.content()])
        with bundle_from_bytes(image) as more:
            assert more.signatures == b""
            assert more.bundle_id != bundle.bundle_id
            assert more.manifest.members[:-1] == bundle.manifest.members
            assert bytes(more.object) == bytes(bundle.object)
            assert b'"x-extension":{"of":"another version"}' in more.manifest_bytes
            again = more.with_members([dataclasses.replace(CODE, data=b"other").content()])
    with bundle_from_bytes(again) as last:
        assert [member.role for member in last.manifest.members].count("native") == 1
        assert parse_native_code(last.member("native"), CODE.name, context="x").data == b"other"


def test_with_members_too_many_raises():
    with bundle_from_bytes(signed_case("minimal")) as bundle:
        contents = [Content("source", f"{number}.c", "text/x-csrc", b"x") for number in range(62)]
        with pytest.raises(BundleFormatError, match="65 members, at most 64"):
            bundle.with_members(contents)
