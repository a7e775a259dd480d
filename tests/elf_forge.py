"""Write ELF objects for BPF section by section, right or wrong in every field."""

import struct

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STT_OBJECT, STT_FUNC = 1, 2
STB_LOCAL, STB_GLOBAL = 0, 1

_SECTION_FIELDS = ("name", "type", "flags", "address", "offset", "size", "link", "info", "alignment", "entry_size")

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """Return one eBPF instruction."""
    return struct.pack("<BBhi", code, src << 4 | dst, offset, imm)


def btf(types: bytes, strings: bytes = b"\0") -> bytes:
    """Return a .BTF section."""
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def btf_type(name: int, kind: int, size_or_type: int, extra: tuple[int, ...] = (), vlen: int = 0) -> bytes:
    """Return one BTF type; ``extra`` are the u32 words behind it."""
    return struct.pack(f"<{3 + len(extra)}I", name, kind << 24 | vlen, size_or_type, *extra)


class Elf:
    """An object in the making. Section 0 is the null section; the names' section is the last one."""

    def __init__(self, *, names: bool = True) -> None:
        self._has_names = names
        self._sections: list[tuple[str, bytes, dict[str, int]]] = [("", b"", {})]
        self._symbols: list[tuple[str, int, int, int, int]] = []
        self._changes: dict[int, dict[str, int]] = {}

    def add(self, name: str, data: bytes, *, kind: int = SHT_PROGBITS, **fields: int) -> int:
        """Add a section and return its index; ``fields`` are flags, link, info and entry_size of its header."""
        self._sections.append((name, data, {"type": kind, "alignment": 8, **fields}))
        return len(self._sections) - 1

    def code(self, name: str, data: bytes) -> int:
        """Add a section of instructions."""
        return self.add(name, data, flags=SHF_ALLOC | SHF_EXECINSTR)

    def symbol(
        self, name: str, section: int, value: int, size: int, *, kind: int = STT_FUNC, bind: int = STB_GLOBAL
    ) -> None:
        """Add a symbol."""
        self._symbols.append((name, bind << 4 | kind, section, value, size))

    def header(self, index: int, **fields: int) -> None:
        """Overwrite fields of a section's header: name, type, flags, offset, size, link, info, entry_size."""
        self._changes.setdefault(index, {}).update(fields)

    def image(self, *, table_first: bool = False) -> bytes:
        """Return the object; its section table stands behind the sections, or in front of them."""
        sections = [*self._sections, *self._symbol_sections()]
        names = bytearray(b"\0")
        offsets = []
        for name in [name for name, _data, _fields in sections] + [".strtab"] * self._has_names:
            offsets.append(len(names) if name else 0)
            names += name.encode() + b"\0" if name else b""
        if self._has_names:
            sections.append((".strtab", bytes(names), {"type": SHT_STRTAB}))
        count = len(sections)
        start = 64 + 64 * count if table_first else 64
        body, headers = bytearray(), b""
        for index, (name_offset, (_name, data, given)) in enumerate(zip(offsets, sections, strict=True)):
            body += bytes(-len(body) % 8) if data else b""
            fields = dict.fromkeys(_SECTION_FIELDS, 0)
            fields |= {"name": name_offset, "offset": start + len(body) if given else 0, "size": len(data)}
            headers += struct.pack("<IIQQQQIIQQ", *(fields | given | self._changes.get(index, {})).values())
            body += data
        if not table_first:
            body += bytes(-len(body) % 8)
        ident = b"\x7fELF\x02\x01\x01" + bytes(9)
        table = 64 if table_first else 64 + len(body)
        head = (ident, 1, 247, 1, 0, 0, table, 0, 64, 0, 0, 64, count, count - 1 if self._has_names else 0)
        tail = headers + body if table_first else bytes(body) + headers
        return struct.pack("<16sHHIQQQIHHHHHH", *head) + tail

    def _symbol_sections(self) -> list[tuple[str, bytes, dict[str, int]]]:
        if not self._symbols:
            return []
        names, table = bytearray(b"\0"), bytearray(24)
        for name, info, section, value, size in self._symbols:
            table += struct.pack("<IBBHQQ", len(names), info, 0, section, value, size)
            names += name.encode() + b"\0"
        fields = {"type": SHT_SYMTAB, "link": len(self._sections), "info": 1, "entry_size": 24}
        return [(".symnames", bytes(names), {"type": SHT_STRTAB}), (".symtab", bytes(table), fields)]
