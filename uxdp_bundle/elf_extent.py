"""Where an eBPF object ends: the bounds of its ELF tables and sections.

Everything outside of the object's byte range is not what was signed as the object, and loaders (libbpf, iproute2) map
the whole file. So no ELF range may leave the member, and no byte of the member may follow the last range: an object
with something appended could be a second bundle. Only struct arithmetic happens here; contents are bpf_object's.

References: elf(5), System V gABI 4.1 chapter 4
"""

import struct
from itertools import pairwise

from .errors import ObjectError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_ET_REL = 1
_EM_BPF = 247
_SHT_NULL = 0
_SHT_NOBITS = 8
_SHN_LORESERVE = 0xFF00
MAX_SECTIONS = 1024


def check_extent(elf: memoryview) -> None:
    """Check that every ELF range lies inside ``elf``, that no two overlap, and that the last one ends it.

    :param elf: memoryview of uint8, the whole object member
    :raises ObjectError: not a relocatable little-endian ELF64 object for BPF, or a range that leaves it or another's
    """
    size = len(elf)
    if size < _HEADER.size:
        raise ObjectError(f"{size} bytes, an ELF header has {_HEADER.size}", context="object")
    (
        ident,
        kind,
        machine,
        _version,
        _entry,
        phoff,
        shoff,
        _flags,
        ehsize,
        _phentsize,
        phnum,
        shentsize,
        shnum,
        strndx,
    ) = _HEADER.unpack_from(elf)
    # 02 01 01: ELFCLASS64, ELFDATA2LSB, EV_CURRENT
    if ident[:7] != b"\x7fELF\x02\x01\x01":
        raise ObjectError(f"begins with {ident[:7].hex()}, expected a little-endian ELF64", context="object")
    if kind != _ET_REL or machine != _EM_BPF:
        raise ObjectError(
            f"ELF type {kind}, machine {machine}; expected relocatable ({_ET_REL}) for BPF ({_EM_BPF})",
            context="object",
        )
    if ehsize != _HEADER.size or phnum != 0 or phoff != 0:
        raise ObjectError("an eBPF object has a 64-byte header and no program headers", context="object.e_phnum")
    # 0 would mean that the real count is in section 0: only for more than 65279 sections.
    if not 1 <= shnum <= MAX_SECTIONS or shentsize != _SECTION.size or strndx >= min(shnum, _SHN_LORESERVE):
        raise ObjectError(
            f"{shnum} sections of {shentsize} bytes, names in {strndx}; expected 1..{MAX_SECTIONS} of {_SECTION.size}",
            context="object.e_shnum",
        )
    end = shoff + shnum * _SECTION.size
    if shoff < _HEADER.size or end > size:
        raise ObjectError(f"table at {shoff}..{end}, the object has {size} bytes", context="object.e_shoff")
    ranges = [(0, _HEADER.size, "object"), (shoff, end, "object.e_shoff")]
    for index in range(shnum):
        _name, section_type, _flags, _addr, offset, length, *_rest = _SECTION.unpack_from(
            elf, shoff + index * _SECTION.size
        )
        if section_type in (_SHT_NULL, _SHT_NOBITS):
            continue
        where = f"object.section[{index}]"
        if offset + length > size:
            raise ObjectError(f"bytes {offset}..{offset + length}, the object has {size}", context=where)
        if length:
            ranges.append((offset, offset + length, where))
        end = max(end, offset + length)
    # Two readings of the same bytes are two objects in one, and a thousand sections of all the bytes are a bomb.
    for (_start, before, _where), (start, stop, where) in pairwise(sorted(ranges)):
        if start < before:
            raise ObjectError(f"bytes {start}..{stop} overlap what comes before, up to {before}", context=where)
    if end != size:
        raise ObjectError(f"{size - end} bytes follow the last ELF section", context="object")
