"""Real bundles, built by uxdp-cc from tests/cases, and the means to put one together wrongly.

A forgery is right in everything but the one thing that a test is about: offsets, hashes, checksum and signatures
follow the change. So the reader gets as far as that one thing, and cannot refuse the file for another reason.
"""

import hashlib
import json
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Self

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from uxdp_bundle.keys import SigningKey
from uxdp_bundle.signature import sign_statement

CASES = Path(__file__).parent / "cases"
TRAILER_BYTES = 64
MAGIC = b"\x89UXDP\r\n\x1a"


def fixed_key(label: str) -> SigningKey:
    """Return the same key for the same label, always: a failing example must fail again."""
    seed = hashlib.sha256(f"uxdp tests: {label}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


PUBLISHER = fixed_key("publisher")
AUDITOR = fixed_key("auditor")
STRANGER = fixed_key("stranger")


@cache
def build_case(name: str, **options: Any) -> bytes:
    """Compile tests/cases/NAME.c and return the image of an unsigned bundle; ``options`` are a BuildRequest's."""
    from uxdp_cc.build import BuildRequest, build  # most unit tests need no compiler

    return build(BuildRequest(sources=(f"{name}.c",), cwd=CASES, **options)).bundle


@cache
def signed_case(name: str, **options: Any) -> bytes:
    """Return the image of a case's bundle with the publisher's signature."""
    return Forgery(build_case(name, **options)).image()


def canonical_json(value: Any) -> bytes:
    """Return canonical JSON, written down here once more so that tests do not check the code against itself."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def aligned(data: bytes) -> bytes:
    """Return ``data`` padded with zeros to a multiple of 16 bytes."""
    return data + bytes(-len(data) % 16)


def compress(content: bytes, **options: Any) -> bytes:
    """Return one zstd frame."""
    return zstandard.ZstdCompressor(**options).compress(content)


def assemble(body: bytes, manifest: bytes, signatures: bytes, **trailer: Any) -> bytes:
    """Return a file image: ``body`` (members and their padding), manifest, signatures, and a trailer.

    :param trailer: fields of the trailer that are not as they should be; the checksum covers them as they are
    """
    fields = {
        "magic": MAGIC,
        "version": 1,
        "reserved": 0,
        "signatures_length": len(signatures),
        "manifest_length": len(manifest),
        "reserved_too": 0,
        "manifest_offset": len(body),
    }
    checksum = trailer.pop("checksum", None)
    assert trailer.keys() <= fields.keys()
    packed = struct.pack("<8sHHIIIQ", *(fields | trailer).values())
    if checksum is None:
        checksum = hashlib.sha256(packed + manifest + signatures).digest()
    return aligned(body + manifest) + signatures + packed + checksum


class Forgery:
    """A bundle taken apart: ``manifest`` as JSON, ``stored`` the members' bytes by index."""

    def __init__(self, image: bytes) -> None:
        _magic, _version, _zero, _signatures, length, _zero_too, offset = struct.unpack_from(
            "<8sHHIIIQ", image, len(image) - TRAILER_BYTES
        )
        self.manifest: Any = json.loads(image[offset : offset + length])
        self.stored = [image[m["offset"] : m["offset"] + m["length"]] for m in self.manifest["members"]]

    @classmethod
    def of(cls, name: str) -> Self:
        """Take a case's bundle apart."""
        return cls(build_case(name))

    def index(self, role: str) -> int:
        """Return the index of the first member of that role."""
        return [member["role"] for member in self.manifest["members"]].index(role)

    def content(self, role: str) -> bytes:
        """Return a member's unpacked content."""
        member, stored = self.manifest["members"][self.index(role)], self.stored[self.index(role)]
        return zstandard.decompress(stored) if member["compression"] == "zstd" else stored

    def store(self, role: str, stored: bytes, **fields: Any) -> None:
        """Replace a member by bytes that are stored as they are; ``fields`` go into the manifest."""
        index = self.index(role)
        self.stored[index] = stored
        fields = {"size": len(stored), "compression": "none"} | fields
        self.manifest["members"][index] |= fields

    def store_compressed(self, role: str, content: bytes) -> None:
        """Replace a member by content, which is compressed."""
        self.store(role, compress(content), size=len(content), compression="zstd")

    def add(self, role: str, stored: bytes, name: str = "added") -> None:
        """Add a member at the end."""
        self.manifest["members"].append(
            {"role": role, "name": name, "size": len(stored), "media_type": "x", "compression": "none"}
        )
        self.stored.append(stored)

    def remove(self, role: str) -> None:
        """Remove a member."""
        index = self.index(role)
        del self.stored[index], self.manifest["members"][index]

    def settle(self) -> Self:
        """Make offsets, lengths and hashes of the members agree with their bytes."""
        offset = 0
        for member, stored in zip(self.manifest["members"], self.stored, strict=True):
            member |= {"offset": offset, "length": len(stored), "sha256": hashlib.sha256(stored).hexdigest()}
            offset += len(aligned(stored))
        return self

    @property
    def body(self) -> bytes:
        """The members one after the other, each padded."""
        return b"".join(map(aligned, self.stored))

    def signatures(self, manifest: bytes, keys: Iterable[SigningKey]) -> bytes:
        """Return one envelope per key, for a manifest as it would be written."""
        bundle_id = hashlib.sha256(manifest).hexdigest()
        return b"".join(sign_statement(bundle_id, str(self.manifest["name"]), key) for key in keys)

    def image(self, *, keys: Iterable[SigningKey] = (PUBLISHER,)) -> bytes:
        """Return a file image that is right in everything that follows from ``manifest`` and ``stored``."""
        self.settle()
        return self.image_as_it_is(keys=keys)

    def image_as_it_is(
        self,
        *,
        manifest: bytes | None = None,
        body: bytes | None = None,
        keys: Iterable[SigningKey] = (PUBLISHER,),
        signatures: bytes | None = None,
        **trailer: Any,
    ) -> bytes:
        """Return a file image without settling; each part may be given, and fields of the trailer too."""
        if manifest is None:
            manifest = canonical_json(self.manifest)
        if signatures is None:
            signatures = self.signatures(manifest, keys)
        return assemble(self.body if body is None else body, manifest, signatures, **trailer)
