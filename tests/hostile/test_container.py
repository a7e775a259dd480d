"""Files that a clever hand has put together: every length, hash and signature is right but for one thing."""

import os
import struct

import pytest

from tests.bundle_factory import PUBLISHER, Forgery, build_case, canonical_json, compress, signed_case
from tests.elf_forge import Elf
from uxdp_bundle.container import MAX_FILE_BYTES
from uxdp_bundle.errors import BundleFormatError, ObjectError

U64 = (1 << 64) - 1


def forge(edit=lambda forged: None, **as_it_is):
    """Return the image of a bundle that ``edit`` has changed; ``as_it_is`` are parts and fields of the trailer."""
    forged = Forgery.of("minimal").settle()
    edit(forged)
    return forged.image_as_it_is(**as_it_is)


def member(index: int, **fields):
    """Return the image of a bundle whose manifest says something else about a member."""
    return forge(lambda forged: forged.manifest["members"][index].update(fields))


def arranged(edit):
    """Return the image of a bundle whose members ``edit`` arranged anew; offsets and hashes follow."""
    forged = Forgery.of("minimal")
    edit(forged)
    return forged.image()


def reordered(*order: int, settle: bool):
    """Return an image whose manifest lists the members in another order than they stand."""
    forged = Forgery.of("minimal").settle()
    forged.manifest["members"] = [forged.manifest["members"][i] for i in order]
    if settle:
        forged.stored = [forged.stored[i] for i in order]
        forged.settle()
    return forged.image_as_it_is()


def overlapping():
    """Return an image in which the last two members share a byte, and both hashes are right."""
    forged = Forgery.of("minimal").settle()
    first, second = forged.manifest["members"][1:3]
    second["offset"] = first["offset"] + first["length"] - 1
    return forged.image_as_it_is()


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(lambda: forge(magic=b"\x89UXDP\n\x1a\0"), "trailer.magic", id="magic-of-a-text-transfer"),
        pytest.param(lambda: forge(version=0), "trailer.version: 0", id="version-0"),
        pytest.param(lambda: forge(version=2), "trailer.version: 2, this version reads 1", id="version-of-the-future"),
        pytest.param(lambda: forge(reserved=1), "trailer.reserved: not zero", id="reserved"),
        pytest.param(lambda: forge(reserved_too=1 << 31), "trailer.reserved: not zero", id="second-reserved"),
        pytest.param(lambda: forge(manifest_length=0), "trailer.manifest_offset", id="no-manifest-length"),
        pytest.param(lambda: forge(manifest_length=0xFFFFFFFF), "4294967295, at most 262144", id="u32-manifest"),
        pytest.param(lambda: forge(signatures_length=0xFFFFFFFF), "4294967295, at most 262144", id="u32-signatures"),
        pytest.param(lambda: forge(signatures_length=262144), "signatures begin at -", id="signatures-before-file"),
        pytest.param(lambda: forge(manifest_offset=0), "trailer.manifest_offset", id="manifest-at-0"),
        pytest.param(lambda: forge(manifest_offset=U64), "manifest at 18446744073709551615", id="offset-u64"),
        pytest.param(lambda: forge(manifest_offset=1 << 63), "manifest at 9223372036854775808", id="offset-s64"),
        pytest.param(lambda: forge(checksum=bytes(32)), "trailer.checksum", id="checksum"),
        pytest.param(lambda: forge(manifest=b""), "manifest: not JSON", id="empty-manifest"),
        pytest.param(lambda: forge(signatures=b"x" * 262145), "at most 262144", id="signatures-too-long"),
        pytest.param(
            lambda: signed_case("minimal") + signed_case("minimal")[-64:], "manifest_offset", id="two-trailers"
        ),
        pytest.param(lambda: signed_case("minimal") * 2, "trailer.manifest_offset", id="bundle-twice"),
        pytest.param(lambda: signed_case("minimal") + forge(), "trailer.manifest_offset", id="bundle-behind-bundle"),
        pytest.param(lambda: b"#!/bin/sh\n" + signed_case("minimal"), "trailer.manifest_offset", id="leading-bytes"),
    ],
)
def test_wrong_trailer_is_refused(bench, make, fragment):
    bench.refuses(make(), BundleFormatError, fragment)


def test_second_trailer_among_the_signatures_is_refused(bench):
    # The outer trailer calls the inner one a signature: structurally sound, so authentication has to refuse it.
    from uxdp_bundle.errors import SignatureError

    inner = signed_case("minimal")
    forged = Forgery(inner).settle()
    manifest = canonical_json(forged.manifest)
    signatures = forged.signatures(manifest, [PUBLISHER]) + inner[-64:]
    image = forged.image_as_it_is(signatures=signatures)
    bench.refuses(image, SignatureError, "the last line does not end with a newline", step="authenticate")
    bench.refuses(
        forged.image_as_it_is(signatures=signatures + b"\n"), SignatureError, "signatures[1]", step="authenticate"
    )


def nonzero_padding():
    """Return an image whose last member is followed by a byte of padding that is not zero."""
    forged = Forgery.of("minimal")
    forged.store("shim", forged.content("shim") + b"x")
    forged.settle()
    return forged.image_as_it_is(body=forged.body[:-1] + b"\1")


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(overlapping, "manifest.members[2].offset", id="overlapping"),
        pytest.param(lambda: member(2, offset=0), "members[2].offset: 0, expected", id="overlapping-the-object"),
        pytest.param(lambda: reordered(0, 2, 1, settle=False), "members[1].offset", id="unsorted"),
        pytest.param(lambda: reordered(1, 0, 2, settle=True), "first member must be the object", id="object-second"),
        pytest.param(lambda: member(1, offset=U64 - 15), "members[1].offset: 18446744073709551600", id="offset-u64"),
        pytest.param(lambda: member(1, offset=1 << 63), "members[1].offset: 9223372036854775808", id="offset-s64"),
        pytest.param(lambda: member(1, length=U64), "members[1].length: ends at 184467440737095", id="length-u64"),
        pytest.param(lambda: member(0, length=U64, size=U64), "members[0].length: ends at", id="object-length-u64"),
        pytest.param(lambda: member(1, size=U64), "members[1].size: 18446744073709551615", id="size-u64"),
        pytest.param(lambda: member(2, length=1 << 20), "members[2].length: ends at", id="out-of-file"),
        pytest.param(lambda: member(2, length=321 + 16), "members[2].", id="into-the-manifest"),
        pytest.param(lambda: member(0, size=1), "members[0].size: 1, expected", id="object-size"),
        pytest.param(lambda: member(0, compression="zstd"), "must not be compressed", id="object-compressed"),
        pytest.param(lambda: member(1, compression="none"), "members[1].size", id="ir-not-compressed"),
        pytest.param(lambda: member(1, sha256="0" * 64), "members[1].sha256", id="hash"),
        pytest.param(lambda: member(0, role="ir"), "first member must be the object", id="object-is-ir"),
        pytest.param(lambda: member(2, role="sbom"), "0 members of role 'shim'", id="shim-is-sbom"),
        pytest.param(lambda: member(2, role="ir", name="ir2"), "2 members of role 'ir'", id="two-irs"),
        pytest.param(lambda: member(1, name="../../etc/cron.d/x"), "members[1].name", id="name-leads-out"),
        pytest.param(lambda: arranged(lambda f: f.remove("shim")), "0 members of role 'shim'", id="no-shim"),
        pytest.param(lambda: arranged(lambda f: f.remove("object")), "first member", id="no-object"),
        pytest.param(
            lambda: arranged(lambda f: [f.add("source", b"", f"{i}.c") for i in range(62)]),
            "65 entries",
            id="65-members",
        ),
        pytest.param(
            lambda: arranged(lambda f: [f.add("source", b"x", "same.c") for _ in "12"]),
            "same role and name",
            id="twins",
        ),
        pytest.param(
            lambda: forge(body=Forgery.of("minimal").body + bytes(16)), "16 bytes between", id="gap-before-manifest"
        ),
        pytest.param(nonzero_padding, "members[2]: padding is not zero", id="padding"),
    ],
)
def test_wrong_members_are_refused(bench, make, fragment):
    bench.refuses(make(), BundleFormatError, fragment)


def with_object(obj: bytes) -> bytes:
    return arranged(lambda forged: forged.store("object", obj))


def real_object(offset: int = 0, layout: str = "", value: int = 0) -> bytes:
    """Return the object of the minimal bundle, perhaps with one field overwritten."""
    obj = bytearray(Forgery.of("minimal").content("object"))
    if layout:
        struct.pack_into(f"<{layout}", obj, offset, value)
    return bytes(obj)


def section_field(index: int, offset: int, layout: str, value: int) -> bytes:
    """Return the object with a field of a section header overwritten; 24 is sh_offset, 32 sh_size."""
    (table,) = struct.unpack_from("<Q", real_object(), 40)
    return real_object(table + 64 * index + offset, layout, value)


def section_over_nested_bundle() -> bytes:
    """Return an object one section of which is another bundle, trailer included."""
    elf = Elf()
    elf.add("nested", signed_case("minimal"))
    return elf.image(table_first=True)


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(lambda: signed_case("minimal"), "bytes follow the last ELF section", id="bundle-as-object"),
        pytest.param(
            lambda: build_case("minimal"), "bytes follow the last ELF section", id="unsigned-bundle-as-object"
        ),
        pytest.param(lambda: real_object() + bytes(16), "16 bytes follow", id="trailing-zeros"),
        pytest.param(lambda: b"", "0 bytes, an ELF header has 64", id="empty"),
        pytest.param(lambda: b"\0" * 200, "expected a little-endian ELF64", id="zeros"),
        pytest.param(lambda: real_object(18, "H", 62), "machine 62", id="for-x86"),
        pytest.param(lambda: real_object(40, "Q", U64 - 63), "object.e_shoff", id="section-table-u64"),
        pytest.param(lambda: real_object(40, "Q", 1 << 20), "object.e_shoff", id="section-table-outside"),
        pytest.param(lambda: real_object(60, "H", 1024), "object.e_shoff", id="section-table-too-long"),
        pytest.param(lambda: real_object(32, "Q", 64), "no program headers", id="program-headers"),
        pytest.param(lambda: section_field(3, 24, "Q", 1 << 20), "object.section[3]", id="section-outside"),
        pytest.param(lambda: section_field(3, 24, "Q", U64), "object.section[3]", id="section-offset-u64"),
        pytest.param(lambda: section_field(3, 32, "Q", U64 - 63), "object.section[3]", id="section-size-u64"),
        pytest.param(lambda: section_field(3, 24, "Q", 0), "overlap", id="section-is-the-header"),
        pytest.param(lambda: section_field(4, 24, "Q", 64), "overlap", id="two-sections-in-one-place"),
    ],
)
def test_wrong_object_is_refused(bench, make, fragment):
    bench.refuses(with_object(make()), ObjectError, fragment)


def test_bundle_inside_of_a_section_is_just_a_section(bench):
    # The inner trailer ends the object, not the file: nobody takes it for the bundle's.
    bench.put(with_object(section_over_nested_bundle()))
    bench.take("authenticate")


def test_file_over_the_limit_is_refused_before_it_is_read(bench):
    bench.put(signed_case("minimal"))
    os.truncate(bench.path, MAX_FILE_BYTES + 1)
    bench.refuses(None, BundleFormatError, "67108865 bytes, at most 67108864 allowed")


def ir(stored: bytes, size: int, compression: str = "zstd") -> bytes:
    return arranged(lambda forged: forged.store("ir", stored, size=size, compression=compression))


def frame_with_size(content: bytes, declared: int) -> bytes:
    """Return a frame whose header declares another size than its blocks have."""
    frame = bytearray(compress(content))
    place = frame.index(struct.pack("<I", len(content)), 4, 16)
    frame[place : place + 4] = struct.pack("<I", declared)
    return bytes(frame)


BOMB_BYTES = 1 << 20
DICTIONARY = b"every byte of this text is in the dictionary " * 4


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(
            lambda: ir(compress(bytes(BOMB_BYTES)), 100), "declares 1048576 bytes, the manifest 100", id="bomb"
        ),
        pytest.param(
            lambda: ir(frame_with_size(bytes(BOMB_BYTES), 70_000), 70_000), "not one zstd frame", id="bomb-that-lies"
        ),
        pytest.param(
            lambda: ir(frame_with_size(bytes(BOMB_BYTES), 1 << 25), 1 << 25),
            "not one zstd frame",
            id="less-than-declared",
        ),
        pytest.param(lambda: ir(compress(b"x" * 99), 100), "declares 99 bytes, the manifest 100", id="size"),
        pytest.param(lambda: ir(compress(b"x" * 100) + b"\0", 100), "unused data", id="trailing-byte"),
        pytest.param(lambda: ir(compress(b"x" * 50) * 2, 50), "unused data", id="two-frames"),
        pytest.param(lambda: ir(compress(b"x" * 50) * 2, 100), "declares 50 bytes", id="two-frames-of-the-size"),
        pytest.param(lambda: ir(compress(b"x" * 100)[:-2], 100), "not one zstd frame", id="cut-off"),
        pytest.param(lambda: ir(compress(b"x" * 100, write_content_size=False), 100), "no size", id="unknown-size"),
        pytest.param(
            lambda: ir(compress(DICTIONARY, dict_data=_dictionary()), len(DICTIONARY)), "not one zstd", id="dictionary"
        ),
        pytest.param(lambda: ir(b"", 100), "not one zstd frame", id="nothing"),
        pytest.param(lambda: ir(b"BC\xc0\xde" * 25, 100), "Unknown frame descriptor", id="not-zstd"),
        pytest.param(
            lambda: ir(struct.pack("<II", 0x184D2A50, 100) + bytes(100), 100), "not one", id="skippable-frame"
        ),
    ],
)
def test_wrong_compression_is_refused_when_the_member_is_read(bench, make, fragment):
    error = bench.refuses(make(), BundleFormatError, fragment, step="bind")
    assert "manifest.members[1]: " in str(error)


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(lambda: ir(b"x", (64 << 20) + 1), "members[1].size: 67108865, at most 67108864", id="over-64-mib"),
        pytest.param(lambda: ir(compress(b""), 0), "an empty member must not be compressed", id="of-nothing"),
    ],
)
def test_wrong_size_is_refused_on_opening(bench, make, fragment):
    bench.refuses(make(), BundleFormatError, fragment)


def test_bomb_is_not_extracted(bench):
    bench.put(ir(compress(bytes(BOMB_BYTES)), 100))
    with pytest.raises(BundleFormatError) as caught:
        bench.take("bind")
    bench.refuses_in_shell(caught.value, "extract")


def _dictionary():
    import zstandard

    return zstandard.ZstdCompressionDict(DICTIONARY)
