"""The container: an eBPF object first, a signed trailer last. FORMAT.md, "Layout", is the specification.

    object · ir · shim · … · manifest · signatures · trailer (64 bytes)

Loaders see the object, because ELF is read from the front; uxdp sees the rest, because the trailer is read from the
back. Members are contiguous on 16-byte boundaries with zero padding; each is hashed in the manifest, whose own SHA-256
is the bundle id, which is what signatures sign. The trailer's checksum also covers the signatures, so that any flipped
bit in the file is noticed on opening; it protects from damage, not from an adversary.

A Bundle is structurally sound and nothing more: nobody's signature was looked at yet (see authentication).
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import zstandard

from . import canonical
from .elf_extent import check_extent
from .errors import BundleFormatError
from .manifest import MAX_MANIFEST_BYTES, MAX_MEMBERS, Manifest, Member, parse_manifest, to_json
from .sealed import SealedMemory, read_sealed, seal_bytes

# Like PNG's: a byte with the high bit set, the name, CR LF, end-of-file and LF show what a text transfer damaged.
MAGIC: Final = b"\x89UXDP\r\n\x1a"
FORMAT_VERSION: Final = 1
TRAILER_BYTES: Final = 64
ALIGNMENT: Final = 16
MAX_FILE_BYTES: Final = 64 << 20
MAX_OBJECT_BYTES: Final = 16 << 20
MAX_UNPACKED_BYTES: Final = 64 << 20
MAX_SIGNATURES_BYTES: Final = 256 << 10
ZSTD_LEVEL: Final = 12

OBJECT_MEDIA_TYPE: Final = "application/vnd.uxdp.bpf-object"
IR_MEDIA_TYPE: Final = "application/vnd.uxdp.llvm-bitcode"
SHIM_MEDIA_TYPE: Final = "application/vnd.uxdp.btf-shim"

# magic, format version, reserved, signatures length, manifest length, reserved, manifest offset, checksum
_TRAILER = struct.Struct("<8sHHIIIQ32s")
_TRAILER_FIELDS_BYTES = 32


@dataclass(frozen=True, slots=True)
class Content:
    """One member before it is packed: ``data`` is the unpacked content."""

    role: str
    name: str
    media_type: str
    data: bytes
    compression: str = "none"


class Bundle:
    """A structurally sound bundle in sealed memory. Close it, or use it as a context manager."""

    def __init__(self, memory: SealedMemory, path: str) -> None:
        """Parse and check ``memory``, which this bundle then owns; see ``open_bundle``."""
        self.path = path
        self._memory = memory
        view = memory.view
        manifest_offset, manifest_end, signatures_offset = _check_trailer(view)
        manifest_bytes = bytes(view[manifest_offset:manifest_end])
        self.bundle_id = hashlib.sha256(manifest_bytes).hexdigest()
        self.signatures = bytes(view[signatures_offset:-TRAILER_BYTES])
        self.manifest = parse_manifest(manifest_bytes)
        self.manifest_bytes = manifest_bytes
        self._signatures_offset = signatures_offset
        _check_members(view, self.manifest, manifest_offset)
        check_extent(self.object)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the sealed memory; views of it become invalid."""
        self._memory.close()

    @property
    def memory(self) -> SealedMemory:
        """The sealed copy of the whole file, which as an ELF file is the object. Borrowed until ``close()``."""
        return self._memory

    @property
    def object(self) -> memoryview:
        """The eBPF object: memoryview, uint8, borrowed until ``close()``."""
        return self._memory.view[: self.manifest.members[0].length]

    def find(self, role: str, name: str | None = None) -> Member | None:
        """Return the first member of that role, and of that name if one is given."""
        for member in self.manifest.members:
            if member.role == role and name in (None, member.name):
                return member
        return None

    def member(self, role: str, name: str | None = None) -> bytes:
        """Return a member's unpacked content.

        :raises BundleFormatError: there is none, or its compressed form does not unpack to exactly its size
        """
        member = self.find(role, name)
        if member is None:
            raise BundleFormatError(
                f"no member of role {role!r}" + (f" named {name!r}" if name else ""), context=self.path
            )
        stored = self._memory.view[member.offset : member.offset + member.length]
        if member.compression == "none":
            return bytes(stored)
        where = f"{self.path}: manifest.members[{self.manifest.members.index(member)}]"
        return _unpack_zstd(stored, member.size, where)

    def with_members(self, contents: Sequence[Content]) -> bytes:
        """Return the file image of this bundle with more members, unsigned; it has another bundle id.

        A member takes the place of one of the same role and name. What else the bundle holds stays as it is stored, and
        what its manifest says that this version does not know stays too.

        :raises BundleFormatError: there would be too many members, or too large ones
        """
        added = {(content.role, content.name) for content in contents}
        packing = _Packing()
        for member in self.manifest.members:
            if (member.role, member.name) not in added:
                packing.keep(member, self._memory.view[member.offset : member.offset + member.length])
        for content in contents:
            packing.add(content)
        if len(packing.members) > MAX_MEMBERS:
            raise BundleFormatError(f"{len(packing.members)} members, at most {MAX_MEMBERS} allowed", context=self.path)
        manifest = canonical.loads_canonical(self.manifest_bytes, what="manifest", max_bytes=MAX_MANIFEST_BYTES)
        manifest["members"] = to_json(tuple(packing.members))
        image = _assemble(*packing.finish(canonical.dumps(manifest)), b"")
        bundle_from_bytes(image, path=self.path).close()
        return image

    def with_signatures(self, signatures: bytes) -> bytes:
        """Return the file image of this bundle with other signatures; the bundle id stays what it is."""
        return _assemble(bytes(self._memory.view[: self._signatures_offset]), self.manifest_bytes, signatures)


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle's file once into sealed memory and check its structure.

    :raises FileAccessError: the file cannot be read safely
    :raises BundleFormatError: the first defect that was found; nothing of the file may be used then
    """
    return _checked(read_sealed(path, MAX_FILE_BYTES), os.fspath(path))


def bundle_from_bytes(data: bytes, *, path: str = "<memory>") -> Bundle:
    """Check a bundle's file image that is in memory already; see ``open_bundle``."""
    if len(data) > MAX_FILE_BYTES:
        raise BundleFormatError(f"{len(data)} bytes, at most {MAX_FILE_BYTES} allowed", context=path)
    return _checked(seal_bytes(data), path)


def _checked(memory: SealedMemory, path: str) -> Bundle:
    try:
        return Bundle(memory, path)
    except BundleFormatError as error:
        memory.close()
        error.context = f"{path}: {error.context}" if error.context else path
        raise
    except BaseException:
        memory.close()
        raise


def pack(manifest: Manifest, contents: Sequence[Content], signatures: bytes = b"") -> bytes:
    """Return the file image of a bundle.

    :param manifest: everything but ``members``, which is made here
    :param contents: the object first; at most MAX_MEMBERS
    :param signatures: DSSE envelopes, one per line, or nothing
    """
    packing = _Packing()
    for content in contents:
        packing.add(content)
    encoded = replace(manifest, members=tuple(packing.members)).encode()
    return _assemble(*packing.finish(encoded), signatures)


class _Packing:
    """Members one after the other, each padded, and their records for the manifest."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._image = bytearray()

    def add(self, content: Content) -> None:
        """Append a member, compressed if it says so."""
        stored = content.data
        # A frame of no bytes is bigger than no bytes, so empty content is stored as it is.
        compression = content.compression if content.data else "none"
        if compression == "zstd":
            stored = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True).compress(content.data)
        member = Member(
            role=content.role,
            name=content.name,
            offset=0,
            length=len(stored),
            size=len(content.data),
            sha256=hashlib.sha256(stored).hexdigest(),
            media_type=content.media_type,
            compression=compression,
        )
        self.keep(member, stored)

    def keep(self, member: Member, stored: bytes | memoryview) -> None:
        """Append a member as it is stored."""
        self.members.append(replace(member, offset=len(self._image)))
        self._image += stored
        self._image += bytes(-len(self._image) % ALIGNMENT)

    def finish(self, manifest: bytes) -> tuple[bytes, bytes]:
        """Return the members with the manifest behind them, padded, and the manifest."""
        body = bytes(self._image) + manifest
        return body + bytes(-len(body) % ALIGNMENT), manifest


def _assemble(body: bytes, manifest: bytes, signatures: bytes) -> bytes:
    """Append signatures and trailer to ``body``, which ends with the manifest and its padding."""
    manifest_offset = len(body) - len(manifest) - -len(manifest) % ALIGNMENT
    fields = _TRAILER.pack(MAGIC, FORMAT_VERSION, 0, len(signatures), len(manifest), 0, manifest_offset, bytes(32))[
        :_TRAILER_FIELDS_BYTES
    ]
    return body + signatures + fields + _checksum(fields, manifest, signatures)


def _checksum(fields: bytes, manifest: bytes | memoryview, signatures: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(fields)
    digest.update(manifest)
    digest.update(signatures)
    return digest.digest()


def _check_trailer(view: memoryview) -> tuple[int, int, int]:
    """Return (manifest offset, manifest end, signatures offset)."""
    size = len(view)
    if size < TRAILER_BYTES:
        raise BundleFormatError(f"{size} bytes, a bundle's trailer alone has {TRAILER_BYTES}", context="trailer")
    magic, version, zero, signatures_length, manifest_length, zero_too, manifest_offset, checksum = _TRAILER.unpack(
        view[-TRAILER_BYTES:]
    )
    if magic != MAGIC:
        plain = bytes(view[:4]) == b"\x7fELF"
        raise BundleFormatError(
            "no trailer" + (": a plain ELF object, or a bundle that strip or objcopy has cut" if plain else ""),
            context="trailer.magic",
            remedy="make one with uxdp-cc -c",
        )
    if version != FORMAT_VERSION:
        raise BundleFormatError(
            f"{version}, this version reads {FORMAT_VERSION}", context="trailer.version", remedy="install a newer uxdp"
        )
    if zero or zero_too:
        raise BundleFormatError("not zero", context="trailer.reserved")
    if manifest_length > MAX_MANIFEST_BYTES:
        raise BundleFormatError(
            f"{manifest_length}, at most {MAX_MANIFEST_BYTES} allowed", context="trailer.manifest_length"
        )
    if signatures_length > MAX_SIGNATURES_BYTES:
        raise BundleFormatError(
            f"{signatures_length}, at most {MAX_SIGNATURES_BYTES} allowed", context="trailer.signatures_length"
        )
    signatures_end = size - TRAILER_BYTES
    signatures_offset = signatures_end - signatures_length
    manifest_end = manifest_offset + manifest_length
    if manifest_offset % ALIGNMENT or _aligned(manifest_end) != signatures_offset:
        raise BundleFormatError(
            f"manifest at {manifest_offset}..{manifest_end}, the signatures begin at {signatures_offset}",
            context="trailer.manifest_offset",
        )
    _check_zero(view, manifest_end, signatures_offset, "manifest")
    fields = bytes(view[-TRAILER_BYTES : -TRAILER_BYTES + _TRAILER_FIELDS_BYTES])
    if checksum != _checksum(fields, view[manifest_offset:manifest_end], view[signatures_offset:signatures_end]):
        raise BundleFormatError("manifest, signatures or trailer are damaged", context="trailer.checksum")
    return manifest_offset, manifest_end, signatures_offset


def _check_members(view: memoryview, manifest: Manifest, manifest_offset: int) -> None:
    members = manifest.members
    roles = [member.role for member in members]
    if len(members) > MAX_MEMBERS or roles[:1] != ["object"]:
        raise BundleFormatError("the first member must be the object", context="manifest.members")
    for role, least in (("object", 1), ("ir", 0), ("shim", 1)):
        if not least <= roles.count(role) <= 1:
            raise BundleFormatError(f"{roles.count(role)} members of role {role!r}", context="manifest.members")
    if len({(member.role, member.name) for member in members}) != len(members):
        raise BundleFormatError("two members have the same role and name", context="manifest.members")
    position = 0
    for index, member in enumerate(members):
        where = f"manifest.members[{index}]"
        if member.offset != position:
            raise BundleFormatError(f"{member.offset}, expected {position}", context=f"{where}.offset")
        end = member.offset + member.length
        if end > manifest_offset:
            raise BundleFormatError(
                f"ends at {end}, the manifest begins at {manifest_offset}", context=f"{where}.length"
            )
        limit = MAX_OBJECT_BYTES if member.role == "object" else MAX_UNPACKED_BYTES
        if member.size > limit:
            raise BundleFormatError(f"{member.size}, at most {limit} allowed", context=f"{where}.size")
        if member.role == "object" and member.compression != "none":
            raise BundleFormatError("the object must not be compressed", context=f"{where}.compression")
        if member.compression == "zstd" and member.size == 0:
            raise BundleFormatError("an empty member must not be compressed", context=f"{where}.compression")
        if member.compression == "none" and member.size != member.length:
            raise BundleFormatError(f"{member.size}, expected {member.length}", context=f"{where}.size")
        digest = hashlib.sha256(view[member.offset : end]).hexdigest()
        if digest != member.sha256:
            raise BundleFormatError(f"content has {digest}, expected {member.sha256}", context=f"{where}.sha256")
        position = _aligned(end)
        _check_zero(view, end, min(position, manifest_offset), where)
    if position != manifest_offset:
        raise BundleFormatError(
            f"{manifest_offset - position} bytes between the last member and the manifest", context="manifest.members"
        )


def _aligned(offset: int) -> int:
    return offset + -offset % ALIGNMENT


def _check_zero(view: memoryview, start: int, end: int, what: str) -> None:
    if any(view[start:end]):
        raise BundleFormatError("padding is not zero", context=what)


def _unpack_zstd(stored: memoryview, size: int, what: str) -> bytes:
    """Unpack one zstd frame that must declare ``size``: the size bounds the memory before anything is unpacked."""
    try:
        declared = zstandard.get_frame_parameters(stored).content_size
        if declared != size:
            told = "no size" if declared == zstandard.CONTENTSIZE_UNKNOWN else f"{declared} bytes"
            raise BundleFormatError(f"the zstd frame declares {told}, the manifest {size} bytes", context=what)
        data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as cause:
        raise BundleFormatError(f"not one zstd frame of {size} bytes: {cause}", context=what) from cause
    if len(data) != size:
        raise BundleFormatError(f"unpacks to {len(data)} bytes, expected {size}", context=what)
    return data
