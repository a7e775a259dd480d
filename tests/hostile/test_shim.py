"""Shims that are not byte for byte what their records encode to."""

import struct
from contextlib import suppress

import pytest

from tests.bundle_factory import Forgery
from uxdp_bundle.context_access import ContextAccess
from uxdp_bundle.errors import BundleFormatError
from uxdp_bundle.shim import decode_shim, encode_shim


def shim() -> bytes:
    return Forgery.of("minimal").content("shim")


def shim_with(text: bytes, *, place: int) -> bytes:
    """Return the shim with one more string, to which the word at ``place`` of its last record refers."""
    data = shim()
    types, strings = struct.unpack_from("<I4xI", data, 12)
    end = 24 + types + strings
    records = bytearray(data[end + -end % 4 :])
    struct.pack_into("<I", records, len(records) - 16 + place, strings)
    head = bytearray(data[:end]) + text + b"\0"
    struct.pack_into("<I", head, 20, strings + len(text) + 1)
    return bytes(head + bytes(-len(head) % 4) + records)


def encoded(*accesses: tuple[str, int, str]) -> bytes:
    """Return the encoding of accesses in an order that may not be theirs."""
    return encode_shim([ContextAccess(*access) for access in accesses])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(400), id="zeros"),
        pytest.param(shim() + b"\0", id="trailing-byte"),
        pytest.param(shim()[:-1], id="cut-off"),
        pytest.param(shim_with(b"0:9", place=8), id="field-that-is-not"),
        pytest.param(shim_with(b"0:x", place=8), id="field-that-is-no-number"),
        pytest.param(shim_with(b"0:00", place=8), id="field-with-leading-zero"),
        pytest.param(shim_with("0:²".encode(), place=8), id="field-that-is-a-superscript"),
        pytest.param(shim_with("0:٣".encode(), place=8), id="field-in-other-digits"),
        pytest.param(shim_with(b"0:" + b"9" * 5000, place=8), id="field-of-too-many-digits"),
        pytest.param(shim_with(b"\xff", place=8), id="path-not-utf8"),
        pytest.param(encoded(("xdp", 8, "data"), ("xdp", 0, "data")), id="offsets-unsorted"),
        pytest.param(encoded(("xdp", 0, "data_end"), ("xdp", 0, "data")), id="fields-unsorted"),
        pytest.param(encoded(("xdp/b", 0, "data"), ("xdp/a", 0, "data")), id="sections-unsorted"),
        pytest.param(encoded(("xdp", 0, "data"), ("xdp", 0, "data")), id="same-record-twice"),
    ],
)
def test_decode_shim_anything_but_canonical_is_refused(data):
    with pytest.raises(BundleFormatError):
        decode_shim(data)


def test_decode_shim_flipped_bits_are_refused_or_mean_something_else():
    data = bytearray(Forgery.of("many_facts").content("shim"))
    right = decode_shim(bytes(data))
    for place in range(len(data)):
        for bit in range(8):
            data[place] ^= 1 << bit
            with suppress(BundleFormatError):
                assert decode_shim(bytes(data)) != right
            data[place] ^= 1 << bit
