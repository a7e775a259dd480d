"""Read BTF (.BTF) and its per-instruction side table (.BTF.ext).

Only what describes a program is decoded: types, variables, data sections, line information. All offsets are checked
against the section before they are followed; type ids are checked when they are used.

References: Documentation/bpf/btf.rst; include/uapi/linux/btf.h
"""

import struct
from bisect import bisect_right
from dataclasses import dataclass
from enum import IntEnum
from itertools import cycle
from typing import Final

from .errors import ObjectError

BTF_MAGIC: Final = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_EXT_HEADER = struct.Struct("<HBBI6I")
_TYPE = struct.Struct("<III")
_POINTER_BYTES = 8
MAX_TYPES: Final = 1 << 20
# Names of C; the kernel's own limit is 512 (KSYM_NAME_LEN).
MAX_NAME_BYTES: Final = 1024
# Lines of source code have no limit, but what is decoded of all of them has.
MAX_TEXT_BYTES: Final = 64 << 20
# Deeper chains than this are cycles (BTF_KIND_ARRAY of itself, a typedef loop).
_MAX_CHAIN = 64


class Kind(IntEnum):
    """BTF_KIND_* of include/uapi/linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_WRAPPERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
_KEYWORDS = {
    Kind.STRUCT: "struct ",
    Kind.UNION: "union ",
    Kind.ENUM: "enum ",
    Kind.ENUM64: "enum ",
    Kind.FWD: "struct ",
}
# Bytes that follow struct btf_type: (fixed, per element).
_TRAILING: dict[int, tuple[int, int]] = {
    Kind.INT: (4, 0),
    Kind.ARRAY: (12, 0),
    Kind.STRUCT: (0, 12),
    Kind.UNION: (0, 12),
    Kind.ENUM: (0, 8),
    Kind.FUNC_PROTO: (0, 8),
    Kind.VAR: (4, 0),
    Kind.DATASEC: (0, 12),
    Kind.DECL_TAG: (4, 0),
    Kind.ENUM64: (0, 12),
}


# Kinds whose size_or_type is a type, besides the wrappers.
_REFERRING = _WRAPPERS | {Kind.PTR, Kind.FUNC, Kind.FUNC_PROTO, Kind.VAR, Kind.DECL_TAG}
# What the words behind a type are, again and again: n a name, t a type, others are numbers.
_WORDS: dict[int, str] = {
    Kind.ARRAY: "tt.",
    Kind.STRUCT: "nt.",
    Kind.UNION: "nt.",
    Kind.ENUM: "n.",
    Kind.ENUM64: "n..",
    Kind.FUNC_PROTO: "nt",
    Kind.DATASEC: "t..",
}


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type; ``size_or_type`` is a size in bytes or a type id, as its kind says; ``extra`` are u32 words."""

    kind: Kind
    name: str
    kind_flag: bool
    vlen: int
    size_or_type: int
    extra: tuple[int, ...]


class Btf:
    """The types of one object. Type ids are indices into ``types``; id 0 is void."""

    def __init__(self, data: bytes) -> None:
        """Parse a .BTF section.

        :raises ObjectError: truncated, unknown kind, or a reference outside of the section
        """
        type_offset, type_length, string_offset, string_length = _header(data)
        self._strings = data[string_offset : string_offset + string_length]
        if not self._strings or self._strings[0] != 0 or self._strings[-1] != 0:
            raise ObjectError("the string table must begin and end with a zero byte", context=".BTF")
        self._decoded: dict[int, str] = {}
        self._decoded_bytes = 0
        self._data_sections: dict[str, BtfType] = {}
        self.types: list[BtfType] = [BtfType(Kind.VOID, "", False, 0, 0, ())]
        position, end = type_offset, type_offset + type_length
        while position < end:
            position = self._read_type(data, position, end)

    def _read_type(self, data: bytes, position: int, end: int) -> int:
        where = f".BTF type[{len(self.types)}]"
        if len(self.types) > MAX_TYPES:
            raise ObjectError(f"more than {MAX_TYPES} types", context=".BTF")
        if position + _TYPE.size > end:
            raise ObjectError("truncated", context=where)
        name, info, size_or_type = _TYPE.unpack_from(data, position)
        number, vlen = info >> 24 & 0x1F, info & 0xFFFF
        if number == 0 or number > max(Kind):
            raise ObjectError(f"kind {number} is unknown", context=where)
        fixed, each = _TRAILING.get(number, (0, 0))
        length: int = fixed + each * vlen
        position += _TYPE.size
        if position + length > end:
            raise ObjectError("truncated", context=where)
        extra = struct.unpack_from(f"<{length // 4}I", data, position)
        found = BtfType(Kind(number), self.string(name), bool(info >> 31), vlen, size_or_type, extra)
        self.types.append(found)
        if found.kind is Kind.DATASEC:
            self._data_sections.setdefault(found.name, found)
        return position + length

    def string(self, offset: int) -> str:
        """Return the name at an offset of the string table."""
        name = self.text(offset)
        if len(name.encode()) > MAX_NAME_BYTES:
            raise ObjectError(f"name of {len(name.encode())} bytes, at most {MAX_NAME_BYTES} allowed", context=".BTF")
        return name

    def text(self, offset: int) -> str:
        """Return the text at an offset of the string table, such as a line of source code."""
        known = self._decoded.get(offset)
        if known is not None:
            return known
        if offset >= len(self._strings):
            raise ObjectError(f"string offset {offset} outside of {len(self._strings)} bytes", context=".BTF")
        end = self._strings.index(0, offset)
        self._decoded_bytes += end - offset
        if self._decoded_bytes > MAX_TEXT_BYTES:
            raise ObjectError(f"strings of more than {MAX_TEXT_BYTES} bytes", context=".BTF")
        try:
            known = self._decoded[offset] = self._strings[offset:end].decode()
        except UnicodeDecodeError as cause:
            raise ObjectError(f"string at {offset} is not UTF-8", context=".BTF") from cause
        return known

    def type(self, type_id: int) -> BtfType:
        """Return a type by id."""
        if type_id >= len(self.types):
            raise ObjectError(f"type id {type_id}, there are {len(self.types)} types", context=".BTF")
        return self.types[type_id]

    def resolve(self, type_id: int) -> BtfType:
        """Return the type behind typedefs, qualifiers and tags."""
        return self.types[self.resolve_id(type_id)]

    def resolve_id(self, type_id: int) -> int:
        """Return the id of the type behind typedefs, qualifiers and tags."""
        for _ in range(_MAX_CHAIN):
            found = self.type(type_id)
            if found.kind not in _WRAPPERS:
                return type_id
            type_id = found.size_or_type
        raise ObjectError("a chain of typedefs has no end", context=f".BTF type[{type_id}]")

    def size(self, type_id: int) -> int:
        """Return the size of a type's values in bytes."""
        count = 1
        for _ in range(_MAX_CHAIN):
            found = self.resolve(type_id)
            if found.kind is Kind.ARRAY:
                type_id, _index_type, length = found.extra
                count *= length
            elif found.kind is Kind.PTR:
                return count * _POINTER_BYTES
            elif found.kind in (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT, Kind.DATASEC):
                return count * found.size_or_type
            else:
                break
        raise ObjectError("a type without a size", context=f".BTF type[{type_id}]")

    def spell(self, type_id: int) -> str:
        """Return a type as C spells it, without qualifiers: ``__u32``, ``struct vip``, ``__u8[16]``."""
        dimensions = ""
        for _ in range(_MAX_CHAIN):
            found = self.type(type_id)
            if found.kind is Kind.ARRAY:
                type_id, _index_type, length = found.extra
                dimensions += f"[{length}]"
            elif found.kind is Kind.TYPEDEF or (found.kind not in _WRAPPERS and found.kind is not Kind.PTR):
                keyword = "union " if found.kind is Kind.FWD and found.kind_flag else _KEYWORDS.get(found.kind, "")
                return f"{keyword}{found.name or ('void' if found.kind is Kind.VOID else '(anonymous)')}{dimensions}"
            elif found.kind is Kind.PTR:
                dimensions = f" *{dimensions}"
                type_id = found.size_or_type
            else:
                type_id = found.size_or_type
        raise ObjectError("a chain of types has no end", context=f".BTF type[{type_id}]")

    def members(self, found: BtfType) -> list[tuple[str, int, int]]:
        """Return (name, type id, offset in bits) of a struct's or union's members."""
        return [
            (
                self.string(found.extra[i]),
                found.extra[i + 1],
                found.extra[i + 2] & 0xFFFFFF if found.kind_flag else found.extra[i + 2],
            )
            for i in range(0, len(found.extra), 3)
        ]

    def member_name(self, found: BtfType, index: int) -> str:
        """Return the name of one member of a struct or union."""
        return self.string(found.extra[3 * index])

    def reference(self, type_id: int) -> object:
        """Return what a type id means in ``meaning``: itself, or the declaration that it is of.

        LLVM numbers forward declarations in the order of their addresses in its memory (BTFDebug::FixupDerivedTypes is
        a map of pointers), so their ids may differ between two runs.
        """
        found = self.type(type_id)
        return (found.name, found.kind_flag) if found.kind is Kind.FWD else type_id

    def meaning(self) -> list[object]:
        """Return what a reader learns from the types: equal for two that differ in places of strings or in such ids."""
        types: list[object] = []
        declared: list[object] = []
        for type_id, found in enumerate(self.types):
            if found.kind is Kind.FWD:
                declared.append(self.reference(type_id))
                types.append(Kind.FWD)
                continue
            target = self.reference(found.size_or_type) if found.kind in _REFERRING else found.size_or_type
            words = cycle(_WORDS.get(found.kind, "."))
            readers = {"n": self.string, "t": self.reference}
            extra = tuple(
                readers[word](value) if word in readers else value
                for word, value in zip(words, found.extra, strict=False)
            )
            types.append((found.kind, found.name, found.kind_flag, found.vlen, target, extra))
        return [*types, sorted(declared, key=repr)]

    def data_section(self, name: str) -> list[BtfType]:
        """Return the VARs of a DATASEC in their order, or nothing if there is no such section."""
        found = self._data_sections.get(name)
        if found is None:
            return []
        entries = [self.type(found.extra[i]) for i in range(0, len(found.extra), 3)]
        if any(entry.kind not in (Kind.VAR, Kind.FUNC) for entry in entries):
            raise ObjectError("an entry is neither variable nor function", context=f".BTF DATASEC {name}")
        return entries


@dataclass(frozen=True, slots=True)
class SourceLine:
    """The source position of an instruction; ``file`` as the compiler recorded it."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class BtfExt:
    """Line information and CO-RE relocations of one object, by ELF section."""

    def __init__(self, data: bytes, btf: Btf) -> None:
        """Parse a .BTF.ext section against its .BTF.

        :raises ObjectError: truncated or inconsistent
        """
        if len(data) < 24:
            raise ObjectError(f"{len(data)} bytes are too short", context=".BTF.ext")
        padded = data[: _EXT_HEADER.size].ljust(_EXT_HEADER.size, b"\0")
        magic, _version, _flags, header_length, *ranges = _EXT_HEADER.unpack(padded)
        if magic != BTF_MAGIC:
            raise ObjectError(f"magic {magic:#x}, expected {BTF_MAGIC:#x}", context=".BTF.ext")
        functions, lines, core = ranges[0:2], ranges[2:4], ranges[4:6]
        if header_length < _EXT_HEADER.size:  # written before CO-RE existed
            core = [0, 0]
        self._btf = btf
        self._lines = {
            section: sorted(records) for section, records in self._records(data, header_length, lines, 4).items()
        }
        # section -> (instruction offset in bytes, type id)
        self._functions = self._records(data, header_length, functions, 2)
        # section -> (instruction offset in bytes, type id, access string offset, kind)
        self.core_relocations = self._records(data, header_length, core, 4)

    def _records(
        self, data: bytes, header_length: int, extent: list[int], words: int
    ) -> dict[str, list[tuple[int, ...]]]:
        start = header_length + extent[0]
        end = start + extent[1]
        result: dict[str, list[tuple[int, ...]]] = {}
        if not extent[1]:
            return result
        if end > len(data) or extent[1] < 4:
            raise ObjectError("a table reaches outside of the section", context=".BTF.ext")
        (record_size,) = struct.unpack_from("<I", data, start)
        if record_size < 4 * words or record_size % 4 or record_size > 256:
            raise ObjectError(f"records of {record_size} bytes", context=".BTF.ext")
        position = start + 4
        while position < end:
            if position + 8 > end:
                raise ObjectError("truncated", context=".BTF.ext")
            name, count = struct.unpack_from("<II", data, position)
            position += 8
            if position + count * record_size > end:
                raise ObjectError("truncated", context=".BTF.ext")
            records = result.setdefault(self._btf.string(name), [])
            for _ in range(count):
                records.append(struct.unpack_from(f"<{words}I", data, position))
                position += record_size
        return result

    def meaning(self) -> dict[str, list[object]]:
        """Return what a reader learns from the records, by section; see ``Btf.meaning``."""
        string, reference = self._btf.text, self._btf.reference
        result: dict[str, list[object]] = {}
        for section, functions in self._functions.items():
            result.setdefault(section, []).extend((offset, reference(kind)) for offset, kind in functions)
        for section, lines in self._lines.items():
            found = ((offset, string(file), string(text), place) for offset, file, text, place in lines)
            result.setdefault(section, []).extend(found)
        for section, relocations in self.core_relocations.items():
            moved = ((offset, reference(kind), string(path), what) for offset, kind, path, what in relocations)
            result.setdefault(section, []).extend(moved)
        return result

    def line_at(self, section: str, offset: int) -> SourceLine | None:
        """Return the source line of the instruction at a byte offset of a section, if the compiler recorded it."""
        records = self._lines.get(section, [])
        index = bisect_right(records, (offset, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)) - 1
        if index < 0:
            return None
        _offset, file, text, position = records[index]
        return SourceLine(self._btf.text(file), position >> 10, position & 0x3FF, self._btf.text(text).strip())


def _header(data: bytes) -> tuple[int, int, int, int]:
    """Return (types offset, length, strings offset, length), absolute and inside of ``data``."""
    if len(data) < _HEADER.size:
        raise ObjectError(f"{len(data)} bytes, a header has {_HEADER.size}", context=".BTF")
    magic, version, _flags, header_length, type_offset, type_length, string_offset, string_length = _HEADER.unpack_from(
        data
    )
    if magic != BTF_MAGIC or version != 1:
        raise ObjectError(f"magic {magic:#x} version {version}, expected {BTF_MAGIC:#x} version 1", context=".BTF")
    type_offset += header_length
    string_offset += header_length
    if header_length < _HEADER.size or max(type_offset + type_length, string_offset + string_length) > len(data):
        raise ObjectError("a table reaches outside of the section", context=".BTF")
    return type_offset, type_length, string_offset, string_length
