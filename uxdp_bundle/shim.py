"""The xdp_md shim: BTF of the native, 64-bit xdp_md, and CO-RE records that name every context access.

In the kernel's UAPI the fields of xdp_md are u32, and the kernel rewrites each load while it verifies. A native runtime
has 64-bit pointers instead. The shim tells it where the loads are, in the terms that libbpf uses to move field accesses
to another layout: a BTF blob with the target layout, followed by a .BTF.ext blob whose core_relo records
(BPF_CORE_FIELD_BYTE_OFFSET) name instruction and field.

References: include/uapi/linux/bpf.h, struct xdp_md and struct bpf_core_relo; Documentation/bpf/btf.rst
"""

import struct
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from .btf import BTF_MAGIC, Btf, BtfExt, Kind
from .context_access import XDP_MD_FIELDS, ContextAccess
from .errors import BundleFormatError, ObjectError

# The native layout: field -> (byte offset, bytes); 40 bytes in all, aligned like its pointers.
NATIVE_XDP_MD: Final = {
    "data": (0, 8),
    "data_end": (8, 8),
    "data_meta": (16, 8),
    "ingress_ifindex": (24, 4),
    "rx_queue_index": (28, 4),
    "egress_ifindex": (32, 4),
}
NATIVE_XDP_MD_BYTES: Final = 40
_U32, _U64, _XDP_MD = 1, 2, 3  # type ids
_BTF_HEADER_BYTES = 24
_EXT_HEADER_BYTES = 32
_RECORD = struct.Struct("<IIII")
_BPF_CORE_FIELD_BYTE_OFFSET = 0
_PATHS: Final = {field: f"0:{index}" for index, field in enumerate(XDP_MD_FIELDS)}
_FIELDS_BY_PATH: Final = {path: field for field, path in _PATHS.items()}


def encode_shim(accesses: Sequence[ContextAccess]) -> bytes:
    """Return the shim member for the accesses, which must be sorted."""
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        """Add a string once and return its offset."""
        encoded = text.encode() + b"\0"
        found = strings.find(b"\0" + encoded)
        if found >= 0:
            return found + 1
        strings.extend(encoded)
        return len(strings) - len(encoded)

    types = bytearray()
    for name, bits in (("__u32", 32), ("__u64", 64)):
        types += struct.pack("<IIII", string(name), Kind.INT << 24, bits // 8, bits)
    types += struct.pack("<III", string("xdp_md"), Kind.STRUCT << 24 | len(NATIVE_XDP_MD), NATIVE_XDP_MD_BYTES)
    for name, (offset, size) in NATIVE_XDP_MD.items():
        types += struct.pack("<III", string(name), _U64 if size == 8 else _U32, offset * 8)

    records = bytearray(struct.pack("<I", _RECORD.size))
    for section, group in groupby(accesses, key=lambda access: access.section):
        members = list(group)
        records += struct.pack("<II", string(section), len(members))
        for access in members:
            path = string(_PATHS[access.field])
            records += _RECORD.pack(access.offset, _XDP_MD, path, _BPF_CORE_FIELD_BYTE_OFFSET)
    if not accesses:
        records.clear()

    btf = struct.pack("<HBBIIIII", BTF_MAGIC, 1, 0, _BTF_HEADER_BYTES, 0, len(types), len(types), len(strings))
    padding = bytes(-(len(types) + len(strings)) % 4)
    extension = struct.pack("<HBBI6I", BTF_MAGIC, 1, 0, _EXT_HEADER_BYTES, 0, 0, 0, 0, 0, len(records))
    return btf + bytes(types) + bytes(strings) + padding + extension + bytes(records)


def decode_shim(data: bytes) -> list[ContextAccess]:
    """Parse a shim member into its accesses.

    :raises BundleFormatError: it is not byte for byte what ``encode_shim`` writes for the accesses that it names
    """
    try:
        btf = Btf(data)
        type_length, string_length = struct.unpack_from("<I4xI", data, 12)
        end = _BTF_HEADER_BYTES + type_length + string_length
        extension = BtfExt(data[end + -end % 4 :], btf)
        accesses = []
        for section, records in extension.core_relocations.items():
            for offset, _type_id, path, _kind in records:
                field = _FIELDS_BY_PATH.get(btf.string(path))
                if field is None:
                    raise BundleFormatError(f"no field has access string {btf.string(path)!r:.40}", context="shim")
                accesses.append(ContextAccess(section, offset, field))
    except ObjectError as cause:
        raise BundleFormatError(f"malformed: {cause}", context="shim") from cause
    if accesses != sorted(set(accesses)) or encode_shim(accesses) != data:
        raise BundleFormatError("is not the canonical encoding of its records", context="shim")
    return accesses
