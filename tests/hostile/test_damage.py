"""What storage and networks do to a file: cut it, flip bits in it, add to it. The whole of a real signed bundle."""

import struct

import pytest

from tests.bundle_factory import TRAILER_BYTES, Forgery
from tests.hostile.workbench import Workbench
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import BundleFormatError, ObjectError, UxdpError


def outcome(image: bytes) -> type[UxdpError] | None:
    """Return the type of the error with which an image is refused, None if it is not; anything else is a failure."""
    try:
        bundle_from_bytes(image).close()
    except UxdpError as error:
        return type(error)
    return None


def regions(image: bytes) -> dict[str, range]:
    """Return the byte ranges of an image by name."""
    magic, _version, _zero, signatures, length, _zero_too, offset = struct.unpack_from(
        "<8sHHIIIQ", image, len(image) - 64
    )
    assert magic.startswith(b"\x89UXDP")
    manifest = Forgery(image).manifest
    found = {m["role"]: range(m["offset"], m["offset"] + m["length"]) for m in manifest["members"]}
    found["elf header"] = range(64)
    found["manifest"] = range(offset, offset + length)
    found["signatures"] = range(len(image) - TRAILER_BYTES - signatures, len(image) - TRAILER_BYTES)
    found["trailer"] = range(len(image) - TRAILER_BYTES, len(image))
    covered = set().union(*map(set, found.values()))
    found["padding"] = [place for place in range(len(image)) if place not in covered]
    return found


REGIONS = ("object", "ir", "shim", "padding", "manifest", "signatures", "trailer")


def test_truncation_at_every_byte_is_refused(minimal_image):
    survived = [
        length for length in range(len(minimal_image)) if outcome(minimal_image[:length]) is not BundleFormatError
    ]
    assert survived == []


def test_missing_beginning_at_every_byte_is_refused(minimal_image):
    survived = [start for start in range(1, len(minimal_image)) if outcome(minimal_image[start:]) is None]
    assert survived == []


def test_missing_byte_anywhere_is_refused(minimal_image):
    places = range(0, len(minimal_image), 7)
    survived = [place for place in places if outcome(minimal_image[:place] + minimal_image[place + 1 :]) is None]
    assert survived == []


def flips(image: bytes, places, masks) -> list[tuple[int, int, str]]:
    """Flip bits one at a time; return (place, mask, outcome) of those that are not refused as malformed."""
    damaged = bytearray(image)
    survived = []
    for place in places:
        for mask in masks:
            damaged[place] ^= mask
            found = outcome(bytes(damaged))
            damaged[place] ^= mask
            if found not in (BundleFormatError, ObjectError):
                survived.append((place, mask, repr(found)))
    return survived


@pytest.mark.parametrize("region", REGIONS)
def test_flipped_bit_in_every_byte_is_refused(minimal_image, region):
    places = regions(minimal_image)[region]
    # Another bit in each byte.
    survived = [flip for place in places for flip in flips(minimal_image, [place], [1 << place % 8])]
    assert survived == []


@pytest.mark.parametrize("region", ["elf header", "shim", "padding", "manifest", "signatures", "trailer"])
def test_every_flipped_bit_is_refused(minimal_image, region):
    assert flips(minimal_image, regions(minimal_image)[region], [1 << bit for bit in range(8)]) == []


@pytest.mark.parametrize("region", ["manifest", "trailer"])
def test_every_wrong_byte_is_refused(minimal_image, region):
    places = list(regions(minimal_image)[region])
    assert flips(minimal_image, places[:: max(1, len(places) // 64)], range(1, 256)) == []


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\0", id="zero"),
        pytest.param(b"\n", id="newline"),
        pytest.param(bytes(16), id="aligned-zeros"),
        pytest.param(b"x" * 4096, id="page"),
    ],
)
def test_trailing_bytes_are_refused(bench, minimal_image, tail):
    bench.refuses(minimal_image + tail, BundleFormatError, "trailer.magic: no trailer")


@pytest.mark.parametrize(
    ("length", "fragment"),
    [
        pytest.param(0, "trailer: 0 bytes", id="empty"),
        pytest.param(63, "trailer: 63 bytes", id="shorter-than-a-trailer"),
        pytest.param(4096, "a plain ELF object, or a bundle that strip or objcopy has cut", id="page"),
        pytest.param(-1, "trailer.magic: no trailer", id="last-byte"),
        pytest.param(-64, "trailer.magic: no trailer", id="trailer"),
    ],
)
def test_truncated_file_is_refused(bench, minimal_image, length, fragment):
    bench.refuses(minimal_image[:length], BundleFormatError, fragment)


def test_text_transfer_is_refused(bench: Workbench, minimal_image):
    bench.refuses(minimal_image.replace(b"\r\n", b"\n"), BundleFormatError, "no trailer")


@pytest.mark.parametrize(
    ("region", "fragment"),
    [
        pytest.param("object", "manifest.members[0].sha256", id="object"),
        pytest.param("ir", "manifest.members[1].sha256", id="ir"),
        pytest.param("shim", "manifest.members[2].sha256", id="shim"),
        pytest.param("padding", "padding is not zero", id="padding"),
        pytest.param("manifest", "trailer.checksum", id="manifest"),
        pytest.param("signatures", "trailer.checksum", id="signatures"),
    ],
)
def test_flipped_bit_is_refused_with_its_place(bench, minimal_image, region, fragment):
    place = list(regions(minimal_image)[region])[-1]
    damaged = bytearray(minimal_image)
    damaged[place] ^= 4
    bench.refuses(bytes(damaged), BundleFormatError, fragment)


@pytest.mark.parametrize("command", ["authenticate", "bind", "inspect", "extract", "sign"])
def test_damaged_file_is_refused_by_every_command(bench, minimal_image, command):
    bench.put(minimal_image[:-1])
    with pytest.raises(BundleFormatError) as caught:
        bench.take("open")
    bench.refuses_in_shell(caught.value, command)
