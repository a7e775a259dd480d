import hashlib
import os
import struct

import pytest
import zstandard

from tests.bundle_factory import Forgery, aligned, assemble, canonical_json, compress
from tests.site_factory import make_bundle, minimal_object
from uxdp_bundle import container
from uxdp_bundle.container import Content, bundle_from_bytes, open_bundle, pack
from uxdp_bundle.errors import BundleFormatError, FileAccessError, ObjectError, UxdpError

UNSIGNED = make_bundle()
IR = b"bitcode " * 100


def forgery() -> Forgery:
    """A small bundle with an object, compressed IR and a shim, taken apart."""
    with bundle_from_bytes(UNSIGNED) as bundle:
        contents = [
            Content("object", "object", container.OBJECT_MEDIA_TYPE, minimal_object()),
            Content("ir", "ir", container.IR_MEDIA_TYPE, IR, "zstd"),
            Content("shim", "shim", container.SHIM_MEDIA_TYPE, b"shim of odd length."),
        ]
        return Forgery(pack(bundle.manifest, contents))


IMAGE = forgery().image()


def refusal(image: bytes, error: type[UxdpError] = BundleFormatError) -> UxdpError:
    """Return the one error with which an image is refused; nothing stays open but what its traceback holds."""
    before = len(os.listdir("/proc/self/fd"))
    try:
        bundle_from_bytes(image, path="x.uxdp")
    except UxdpError as refused:
        raised = refused.with_traceback(None)
    assert type(raised) is error
    assert len(os.listdir("/proc/self/fd")) == before
    return raised


def test_bundle_from_bytes_sound_image_opens():
    with bundle_from_bytes(IMAGE) as bundle:
        assert bundle.path == "<memory>"
        assert bundle.manifest.name == "nf"
        assert bundle.bundle_id == hashlib.sha256(bundle.manifest_bytes).hexdigest()
        assert bundle.signatures.endswith(b"\n")
        assert bytes(bundle.object) == minimal_object()
        assert bytes(bundle.memory.view) == IMAGE


def test_open_bundle_reads_the_file(tmp_path):
    path = tmp_path / "nf.uxdp"
    path.write_bytes(IMAGE)
    with open_bundle(path) as bundle:
        assert bundle.path == str(path)
        assert bytes(bundle.memory.view) == IMAGE


def test_open_bundle_defect_names_file_and_field(tmp_path):
    path = tmp_path / "nf.uxdp"
    path.write_bytes(IMAGE + b"x")
    with pytest.raises(BundleFormatError) as caught:
        open_bundle(str(path))
    assert caught.value.context == f"{path}: trailer.magic"


def test_open_bundle_missing_file_raises(tmp_path):
    with pytest.raises(FileAccessError):
        open_bundle(tmp_path / "missing")


def test_bundle_closed_twice_is_harmless():
    bundle = bundle_from_bytes(IMAGE)
    bundle.close()
    bundle.close()


def test_find_gives_the_first_member_of_a_role():
    with bundle_from_bytes(IMAGE) as bundle:
        assert bundle.find("ir") is bundle.manifest.members[1]
        assert bundle.find("ir", "ir") is bundle.manifest.members[1]
        assert bundle.find("ir", "other") is None
        assert bundle.find("sbom") is None


def test_member_gives_the_unpacked_content():
    with bundle_from_bytes(IMAGE) as bundle:
        assert bundle.member("ir") == IR
        assert bundle.member("shim", "shim") == b"shim of odd length."


@pytest.mark.parametrize(("role", "name"), [("sbom", None), ("shim", "other")])
def test_member_that_is_not_there_raises(role, name):
    with bundle_from_bytes(IMAGE, path="x.uxdp") as bundle, pytest.raises(BundleFormatError) as caught:
        bundle.member(role, name)
    assert str(caught.value).startswith(f"x.uxdp: no member of role '{role}'")


def test_with_signatures_replaces_them_and_nothing_else():
    with bundle_from_bytes(IMAGE) as bundle:
        for signatures in (b"", b"x", b"line\n" * 100):
            with bundle_from_bytes(bundle.with_signatures(signatures)) as other:
                assert other.signatures == signatures
                assert other.bundle_id == bundle.bundle_id
        assert bundle.with_signatures(bundle.signatures) == IMAGE


def test_pack_writes_what_the_format_says():
    assert forgery().settle().image_as_it_is() == IMAGE


def test_pack_empty_content_is_not_compressed():
    with bundle_from_bytes(UNSIGNED) as bundle:
        contents = [
            Content("object", "object", container.OBJECT_MEDIA_TYPE, minimal_object()),
            Content("shim", "shim", container.SHIM_MEDIA_TYPE, b"x"),
            Content("source", "empty.h", "text/x-csrc", b"", "zstd"),
        ]
        image = pack(bundle.manifest, contents)
    with bundle_from_bytes(image) as bundle:
        assert bundle.member("source") == b""
        assert bundle.manifest.members[2].compression == "none"


def test_bundle_from_bytes_over_the_limit_raises(monkeypatch):
    monkeypatch.setattr(container, "MAX_FILE_BYTES", len(IMAGE) - 1)
    assert "at most" in refusal(IMAGE).message


def test_bundle_from_bytes_empty_object_list_raises():
    assert refusal(UNSIGNED[:63]).context == "x.uxdp: trailer"


def test_failure_of_another_kind_leaves_nothing_open(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(container, "check_extent", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bundle_from_bytes(IMAGE)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("image", "context", "fragment"),
    [
        pytest.param(b"", "trailer", "0 bytes, a bundle's trailer alone has 64", id="empty"),
        pytest.param(IMAGE[-63:], "trailer", "63 bytes", id="shorter-than-a-trailer"),
        pytest.param(minimal_object(), "trailer.magic", "a plain ELF object, or a bundle that strip", id="plain-elf"),
        pytest.param(bytes(100), "trailer.magic", "no trailer", id="no-magic"),
        pytest.param(forgery().settle().image_as_it_is(version=2), "trailer.version", "2, this version", id="version"),
        pytest.param(forgery().settle().image_as_it_is(reserved=1), "trailer.reserved", "not zero", id="reserved"),
        pytest.param(
            forgery().settle().image_as_it_is(reserved_too=1), "trailer.reserved", "not zero", id="second-reserved"
        ),
        pytest.param(
            forgery().settle().image_as_it_is(manifest_length=(256 << 10) + 1),
            "trailer.manifest_length",
            "262145, at most 262144",
            id="manifest-too-long",
        ),
        pytest.param(
            forgery().settle().image_as_it_is(signatures_length=0xFFFFFFFF),
            "trailer.signatures_length",
            "4294967295, at most 262144",
            id="signatures-too-long",
        ),
        pytest.param(
            forgery().settle().image_as_it_is(signatures_length=200_000),
            "trailer.manifest_offset",
            "signatures begin at -",
            id="signatures-before-the-file",
        ),
        pytest.param(
            forgery().settle().image_as_it_is(manifest_offset=(1 << 64) - 16),
            "trailer.manifest_offset",
            "manifest at 18446744073709551600..",
            id="offset-u64",
        ),
        pytest.param(
            forgery().settle().image_as_it_is(manifest_offset=8), "trailer.manifest_offset", "8..", id="misaligned"
        ),
        pytest.param(forgery().settle().image_as_it_is(checksum=bytes(32)), "trailer.checksum", "damaged", id="sum"),
    ],
)
def test_bundle_from_bytes_bad_trailer_raises(image, context, fragment):
    error = refusal(image)
    assert error.context == f"x.uxdp: {context}"
    assert fragment in error.message


def with_member(index: int, **fields: object) -> bytes:
    forged = forgery().settle()
    forged.manifest["members"][index] |= fields
    return forged.image_as_it_is()


def with_members(edit) -> bytes:
    forged = forgery()
    edit(forged)
    return forged.image()


def nonzero_padding(before_manifest: bool) -> bytes:
    forged = forgery().settle()
    if before_manifest:
        body = forged.body[:-1] + b"\1"
        return forged.image_as_it_is(body=body)
    manifest = canonical_json(forged.manifest)
    if len(manifest) % 16 == 0:
        forged.manifest["license"] += "x"
        manifest = canonical_json(forged.manifest)
    image = bytearray(assemble(forged.body, manifest, b""))
    image[-65] = 1
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "context", "fragment"),
    [
        pytest.param(with_members(lambda f: f.remove("shim")), "members", "0 members of role 'shim'", id="no-shim"),
        pytest.param(with_members(lambda f: f.remove("object")), "members", "first member", id="no-object"),
        pytest.param(
            with_members(lambda f: (f.stored.clear(), f.manifest["members"].clear())),
            "members",
            "first member must be the object",
            id="no-members",
        ),
        pytest.param(with_members(lambda f: f.add("ir", b"")), "members", "2 members of role 'ir'", id="two-irs"),
        pytest.param(
            with_members(lambda f: f.add("object", minimal_object())), "members", "2 members", id="two-objects"
        ),
        pytest.param(
            with_members(lambda f: (f.add("sbom", b"1"), f.add("sbom", b"2"))),
            "members",
            "same role and name",
            id="same-name",
        ),
        pytest.param(with_member(1, offset=0), "members[1].offset", "0, expected 128", id="overlap"),
        pytest.param(with_member(2, offset=(1 << 64) - 16), "members[2].offset", "expected", id="offset-u64"),
        pytest.param(with_member(2, length=(1 << 64) - 1), "members[2].length", "ends at 1844674", id="length-u64"),
        pytest.param(with_member(2, length=100_000), "members[2].length", "the manifest begins", id="length-outside"),
        pytest.param(with_member(0, size=(16 << 20) + 1), "members[0].size", "at most 16777216", id="large-object"),
        pytest.param(with_member(1, size=(64 << 20) + 1), "members[1].size", "at most 67108864", id="large-ir"),
        pytest.param(with_member(1, size=0), "members[1].compression", "empty member", id="empty-frame"),
        pytest.param(
            with_member(0, compression="zstd"), "members[0].compression", "must not be compressed", id="packed-object"
        ),
        pytest.param(with_member(2, size=18), "members[2].size", "18, expected 19", id="size-of-stored"),
        pytest.param(with_member(1, sha256="00" * 32), "members[1].sha256", "expected 000000", id="hash"),
        pytest.param(nonzero_padding(True), "members[2]", "padding is not zero", id="padding-of-a-member"),
        pytest.param(
            forgery().settle().image_as_it_is(body=forgery().body + bytes(16)),
            "members",
            "16 bytes between the last member and the manifest",
            id="gap-before-manifest",
        ),
    ],
)
def test_bundle_from_bytes_bad_members_raise(image, context, fragment):
    error = refusal(image)
    assert error.context == f"x.uxdp: manifest.{context}"
    assert fragment in error.message


def test_bundle_from_bytes_nonzero_padding_of_the_manifest_raises():
    error = refusal(nonzero_padding(False))
    assert (error.context, error.message) == ("x.uxdp: manifest", "padding is not zero")


def test_bundle_from_bytes_malformed_object_raises():
    error = refusal(with_members(lambda f: f.store("object", minimal_object() + bytes(16))), ObjectError)
    assert str(error) == "x.uxdp: object: 16 bytes follow the last ELF section"


def test_bundle_from_bytes_without_ir_opens():
    with bundle_from_bytes(with_members(lambda f: f.remove("ir"))) as bundle:
        assert bundle.find("ir") is None


def test_bundle_from_bytes_most_members_open():
    with bundle_from_bytes(with_members(lambda f: [f.add("source", b"", f"{i}.h") for i in range(61)])) as bundle:
        assert len(bundle.manifest.members) == container.MAX_MEMBERS


def bomb() -> bytes:
    frame = bytearray(compress(bytes(1 << 20)))
    place = frame.index(struct.pack("<I", 1 << 20))
    frame[place : place + 4] = struct.pack("<I", len(IR) * 1000)
    return bytes(frame)


@pytest.mark.parametrize(
    ("stored", "size", "fragment"),
    [
        pytest.param(compress(IR), len(IR) - 1, "declares 800 bytes, the manifest 799", id="size-too-small"),
        pytest.param(compress(IR), len(IR) + 1, "declares 800 bytes, the manifest 801", id="size-too-large"),
        pytest.param(compress(IR, write_content_size=False), 800, "declares no size", id="no-size"),
        pytest.param(compress(IR) + b"x", 800, "1 bytes of unused data", id="trailing-byte"),
        pytest.param(compress(IR) + compress(IR), 800, "unused data", id="two-frames"),
        pytest.param(compress(IR)[:-1], 800, "did not decompress full frame", id="cut-off"),
        pytest.param(b"", 800, "not enough data", id="nothing"),
        pytest.param(IR, 800, "Unknown frame descriptor", id="not-zstd"),
        pytest.param(struct.pack("<II", 0x184D2A50, 8) + bytes(8), 8, "not one zstd frame", id="skippable-frame"),
        pytest.param(bomb(), 800_000, "buffer is too small", id="expands-further-than-declared"),
        pytest.param(
            compress(IR, dict_data=zstandard.ZstdCompressionDict(b"bitcode " * 8)),
            800,
            "not one zstd frame",
            id="dictionary",
        ),
    ],
)
def test_member_bad_frame_raises(stored, size, fragment):
    forged = forgery()
    forged.store("ir", stored, size=size, compression="zstd")
    with bundle_from_bytes(forged.image(), path="x.uxdp") as bundle, pytest.raises(BundleFormatError) as caught:
        bundle.member("ir")
    assert caught.value.context == "x.uxdp: manifest.members[1]"
    assert fragment in caught.value.message


def test_member_that_unpacks_short_raises(monkeypatch):
    # No version of zstd is known to do that; the reader does not depend on it.
    class Short:
        def decompress(self, *_args, **_options) -> bytes:
            return b""

    monkeypatch.setattr(container.zstandard, "ZstdDecompressor", Short)
    with bundle_from_bytes(IMAGE) as bundle, pytest.raises(BundleFormatError, match="unpacks to 0 bytes, expected 800"):
        bundle.member("ir")


def test_trailer_is_the_last_64_bytes():
    manifest_length = len(canonical_json(forgery().settle().manifest))
    magic, version, _, signatures_length, length, _, offset, _ = struct.unpack("<8sHHIIIQ32s", IMAGE[-64:])
    assert (magic, version, length) == (container.MAGIC, 1, manifest_length)
    assert offset == len(aligned(forgery().body))
    assert len(IMAGE) == offset + manifest_length + -manifest_length % 16 + signatures_length + 64
