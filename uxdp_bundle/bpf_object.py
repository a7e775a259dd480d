"""The eBPF object as an ELF file: sections, functions, relocations, license, BTF.

Only what loaders look at is read, and every offset, size and index is checked before it is followed. What the
instructions mean is not looked at here (see instructions and context_access).

References: elf(5), System V gABI 4.1 chapter 4; Documentation/bpf/llvm_reloc.rst; libbpf, bpf_object__elf_collect
"""

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from .btf import MAX_NAME_BYTES, Btf, BtfExt, SourceLine
from .elf_extent import check_extent
from .errors import ObjectError

SHT_NULL: Final = "SHT_NULL"
SHT_PROGBITS: Final = "SHT_PROGBITS"
SHT_SYMTAB: Final = "SHT_SYMTAB"
SHT_STRTAB: Final = "SHT_STRTAB"
SHT_RELA: Final = "SHT_RELA"
SHT_NOBITS: Final = "SHT_NOBITS"
SHT_REL: Final = "SHT_REL"
SHF_ALLOC: Final = 2
SHF_EXECINSTR: Final = 4
SHN_UNDEF: Final = 0
SHN_LORESERVE: Final = 0xFF00
STT_OBJECT: Final = "STT_OBJECT"
STT_FUNC: Final = "STT_FUNC"
STT_FILE: Final = "STT_FILE"
STB_LOCAL: Final = "STB_LOCAL"
STB_WEAK: Final = "STB_WEAK"

INSTRUCTION_BYTES: Final = 8
# The verifier processes at most 1 M instructions (BPF_COMPLEXITY_LIMIT_INSNS): more cannot be loaded.
MAX_INSTRUCTIONS: Final = 1_000_000
MAX_SYMBOLS: Final = 1 << 16
MAX_RELOCATIONS: Final = 1 << 18

# By number; others are named by their number, as SHT_0x6ffffff0.
_SECTION_TYPES = {0: SHT_NULL, 1: SHT_PROGBITS, 2: SHT_SYMTAB, 3: SHT_STRTAB, 4: SHT_RELA, 8: SHT_NOBITS, 9: SHT_REL}
_SYMBOL_TYPES = {0: "STT_NOTYPE", 1: STT_OBJECT, 2: STT_FUNC, 3: "STT_SECTION", 4: STT_FILE}
_SYMBOL_BINDS = {0: STB_LOCAL, 1: "STB_GLOBAL", 2: STB_WEAK}
_STV_INTERNAL = 1
_STV_HIDDEN = 2

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QII")


@dataclass(frozen=True, slots=True)
class Section:
    """One ELF section; ``data`` is empty for SHT_NOBITS, whose ``size`` in bytes still counts."""

    index: int
    name: str
    type: str
    flags: int
    size: int
    data: bytes

    @property
    def executable(self) -> bool:
        """Whether the section holds instructions."""
        return bool(self.flags & SHF_EXECINSTR) and self.size > 0


class Symbol(NamedTuple):
    """One ELF symbol; ``section`` is a section index, or SHN_UNDEF, or one from SHN_LORESERVE on (absolute, common)."""

    name: str
    type: str
    bind: str
    section: int
    value: int
    size: int
    visibility: int

    @property
    def is_hidden(self) -> bool:
        """Whether libbpf takes a global symbol for a static one, because of its visibility."""
        return self.visibility in (_STV_HIDDEN, _STV_INTERNAL)


class Relocation(NamedTuple):
    """What a relocated place refers to; ``type`` is R_BPF_…"""

    type: int
    symbol: Symbol


class BpfObject:
    """A parsed eBPF object: ``sections`` and ``symbols`` in file order, relocations by section and byte offset.

    Relocations are those of sections that are loaded (SHF_ALLOC): code, maps, data.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        """Parse an object.

        :param data: the whole ELF file, nothing behind it
        :raises ObjectError: no relocatable BPF ELF, tables out of bounds or over the limits, malformed BTF
        """
        check_extent(memoryview(data))
        headers = _section_headers(data)
        self.sections = _sections(data, headers)
        self.symbols = _symbols(self.sections, headers)
        self.relocations = _relocations(self.sections, headers, self.symbols)
        if sum(section.size for section in self.sections if section.executable) > MAX_INSTRUCTIONS * INSTRUCTION_BYTES:
            raise ObjectError(f"more than {MAX_INSTRUCTIONS} instructions", context="object")
        self._by_name = {section.name: section for section in reversed(self.sections)}
        self._globals: dict[int, dict[str, Symbol]] = {}
        for symbol in self.symbols:
            if symbol.bind != STB_LOCAL:
                self._globals.setdefault(symbol.section, {})[symbol.name] = symbol
        btf = self.section(".BTF")
        extension = self.section(".BTF.ext")
        self.btf = Btf(btf.data) if btf is not None else None
        self.btf_ext = BtfExt(extension.data, self.btf) if extension is not None and self.btf is not None else None

    def section(self, name: str) -> Section | None:
        """Return the section of that name; there is at most one."""
        return self._by_name.get(name)

    def global_symbols(self, section: int) -> dict[str, Symbol]:
        """Return the symbols of a section that are not local, by name."""
        return self._globals.get(section, {})

    @property
    def license(self) -> str:
        """The text of the license section, or nothing."""
        section = self.section("license")
        if section is None:
            return ""
        text = section.data.split(b"\0", 1)[0]
        if not text.isascii() or not text.decode("ascii").isprintable():
            raise ObjectError("not printable ASCII", context="section license")
        return text.decode("ascii")

    def line_at(self, section: Section, offset: int) -> SourceLine | None:
        """Return the source line of the instruction at a byte offset of a section, if the compiler recorded it."""
        return self.btf_ext.line_at(section.name, offset) if self.btf_ext is not None else None


class _Header(NamedTuple):
    """An ELF section header."""

    name: int
    type: str
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


def _section_headers(data: bytes | memoryview) -> list[_Header]:
    # check_extent has shown that the table lies inside of the object, and so does every section.
    fields = _HEADER.unpack_from(data)
    start, count = fields[6], fields[12]
    headers = []
    for index in range(count):
        name, kind, *rest = _SECTION.unpack_from(data, start + index * _SECTION.size)
        headers.append(_Header(name, _SECTION_TYPES.get(kind, f"SHT_{kind:#x}"), *rest))
    return headers


def _sections(data: bytes | memoryview, headers: list[_Header]) -> list[Section]:
    names_index = _HEADER.unpack_from(data)[13]
    names = _content(data, headers[names_index])
    sections = []
    seen: set[str] = set()
    for index, header in enumerate(headers):
        name = _string(names, header.name, f"section[{index}]") if header.type != SHT_NULL else ""
        section = Section(index, name, header.type, header.flags, header.size, _content(data, header))
        if section.executable and (header.type != SHT_PROGBITS or header.size % INSTRUCTION_BYTES):
            raise ObjectError(
                f"{header.type}, {header.size} bytes; expected SHT_PROGBITS of whole instructions",
                context=f"section {name}",
            )
        if header.type in (SHT_PROGBITS, SHT_NOBITS):
            # Loaders find sections by name, and would not agree on which of two is meant.
            if name in seen:
                raise ObjectError("there are two sections of this name", context=f"section {name}")
            seen.add(name)
        sections.append(section)
    return sections


def _content(data: bytes | memoryview, header: _Header) -> bytes:
    if header.type in (SHT_NULL, SHT_NOBITS):
        return b""
    return bytes(data[header.offset : header.offset + header.size])


def _string(table: bytes, offset: int, where: str) -> str:
    end = table.find(b"\0", offset, offset + MAX_NAME_BYTES + 1)
    if offset >= len(table) or end < 0:
        raise ObjectError(
            f"name at {offset} of {len(table)} bytes of names, expected one of at most {MAX_NAME_BYTES} bytes",
            context=where,
        )
    try:
        return table[offset:end].decode()
    except UnicodeDecodeError as cause:
        raise ObjectError("name is not UTF-8", context=where) from cause


def _entries(section: Section, header: _Header, layout: struct.Struct, most: int) -> list[tuple[int, ...]]:
    """Return the records of a table."""
    if header.entry_size != layout.size or header.size % layout.size or header.size > most * layout.size:
        raise ObjectError(
            f"{header.size} bytes of {header.entry_size}-byte entries, expected at most {most} of {layout.size} bytes",
            context=f"section {section.name}",
        )
    return list(layout.iter_unpack(section.data))


def _symbols(sections: list[Section], headers: list[_Header]) -> list[Symbol]:
    tables = [section for section in sections if section.type == SHT_SYMTAB]
    if not tables:
        return []
    if len(tables) > 1:
        raise ObjectError("there are two symbol tables", context="object")
    header = headers[tables[0].index]
    if header.link >= len(sections):
        raise ObjectError(f"names in section {header.link} of {len(sections)}", context="symbol table")
    names = sections[header.link].data
    symbols = []
    for index, (name, info, other, section, value, size) in enumerate(
        _entries(tables[0], header, _SYMBOL, MAX_SYMBOLS)
    ):
        where = f"symbol[{index}]"
        if len(sections) <= section < SHN_LORESERVE:
            raise ObjectError(f"in section {section} of {len(sections)}", context=where)
        text = _string(names, name, where) if name else ""
        kind, bind = (
            _SYMBOL_TYPES.get(info & 0xF, f"STT_{info & 0xF}"),
            _SYMBOL_BINDS.get(info >> 4, f"STB_{info >> 4}"),
        )
        symbols.append(Symbol(text, kind, bind, section, value, size, other & 3))
    return symbols


def _relocations(
    sections: list[Section], headers: list[_Header], symbols: list[Symbol]
) -> dict[int, dict[int, Relocation]]:
    """Return the relocations: section index -> byte offset -> relocation."""
    result: dict[int, dict[int, Relocation]] = {}
    for table, header in zip(sections, headers, strict=True):
        if table.type not in (SHT_REL, SHT_RELA):
            continue
        if header.info >= len(sections):
            raise ObjectError(f"for section {header.info} of {len(sections)}", context=f"section {table.name}")
        target = sections[header.info]
        if not target.flags & SHF_ALLOC:  # debugging information, and .BTF whose fields are complete as they are
            continue
        if table.type == SHT_RELA or target.index in result:
            raise ObjectError("expected one table of relocations without addends", context=f"section {target.name}")
        places = result[target.index] = {}
        for offset, kind, index in _entries(table, header, _REL, MAX_RELOCATIONS):
            if index >= len(symbols) or offset >= target.size or offset in places:
                raise ObjectError(
                    f"place {offset} of {target.size} bytes, symbol {index} of {len(symbols)}; "
                    "expected places inside of the section, each once",
                    context=f"section {table.name}",
                )
            places[offset] = Relocation(kind, symbols[index])
    return result
