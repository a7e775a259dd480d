"""Load a native object that LLVM emitted into this process: a small linker for what our own compiler writes.

A compiled network function is one relocatable ELF object without LLVM's runtime. Its sections are copied into one
anonymous mapping, relocated, and the code is made executable and everything but data read-only; no page is ever
writable and executable. External symbols (stores, the worker, a few libc functions) are given by the caller: data is
reached through a table of addresses (the GOT), code through short jumps, so both may be anywhere in the address space.

The bytes are not trusted to be well-formed (a cache is a file), so every offset is checked before it is used.

References: elf(5); System V ABI AMD64 supplement, 4.4 "Relocation"; ELF for the Arm 64-bit Architecture, 5.7
"""

import ctypes
import mmap
import platform
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from uxdp_bundle.errors import UxdpError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 2, 4, 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_STT_FUNC: Final = 2
_SHN_UNDEF, _SHN_ABS, _SHN_COMMON = 0, 0xFFF1, 0xFFF2
_EM_X86_64, _EM_AARCH64 = 62, 183
_PAGE: Final = mmap.PAGESIZE
_MAX_IMAGE_BYTES: Final = 1 << 28
_U64: Final = (1 << 64) - 1


class NativeObjectError(UxdpError):
    """A native object is malformed, for another machine, or needs a symbol that nobody defines."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Function:
    """A function of loaded code."""

    name: str
    address: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    section: int
    value: int
    size: int
    is_function: bool


class LoadedObject:
    """A native object in executable memory, for as long as this lives; the fields are those of LinkedImage."""

    def __init__(self, data: bytes, externals: Mapping[str, int]) -> None:
        """Load an object.

        :param data: a relocatable ELF64 object of this machine
        :param externals: addresses of the symbols that it leaves undefined
        :raises NativeObjectError: malformed, another machine's, or a symbol is missing
        """
        self._image = LinkedImage(data, externals, platform.machine(), _map_memory)
        self.symbols = self._image.symbols
        self.functions = self._image.functions
        self.constants = self._image.constants
        # Memory that the code refers to is kept alive by whoever gave its address; this only keeps the code.
        _protect(self._image)

    def address(self, name: str) -> int:
        """Return the address of a defined symbol."""
        try:
            return self.symbols[name]
        except KeyError as cause:
            raise NativeObjectError(f"defines no {name!r}", context="native object") from cause

    def function(self, name: str, result: type | None, *arguments: type) -> Callable[..., int]:
        """Return a defined function as a ctypes callable; the code lives as long as it does."""
        function = ctypes.CFUNCTYPE(result, *arguments)(self.address(name))
        function.owner = self  # type: ignore[attr-defined]  # the code must outlive the callable
        return function


class LinkedImage:
    """A native object laid out and relocated for one place in memory, by nobody run yet.

    - ``memory``, ``base``: the bytes, and the address for which they are made
    - ``ranges``: (start, end, PROT_…) offsets of pages in it
    - ``constants``: (address, bytes) of the object's constant data
    - ``symbols``: addresses of the names that the object defines; ``functions``: those of them that are functions
    """

    def __init__(
        self,
        data: bytes,
        externals: Mapping[str, int],
        machine: str,
        allocate: Callable[[int], tuple[mmap.mmap | bytearray, int]],
    ) -> None:
        """Link an object.

        :param data: a relocatable ELF64 object of that machine
        :param externals: addresses of the symbols that it leaves undefined
        :param allocate: gives zeroed memory of so many bytes, and the address that it has where the code will run
        :raises NativeObjectError: malformed, another machine's, or a symbol is missing
        """
        self._data = data
        self._externals = externals
        try:
            self._sections, self._machine = _parse_sections(data, machine)
            self._symbols = _parse_symbols(data, self._sections)
            self._relocations = self._parse_relocations()
            self._layout()
        except (struct.error, IndexError, ValueError, UnicodeDecodeError) as cause:
            raise NativeObjectError(f"malformed: {cause}", context="native object") from cause
        self.memory, self.base = allocate(self._size)
        self.constants = tuple(
            (self.base + start, self._sections[index].size)
            for index, start in self._starts.items()
            if not self._sections[index].flags & (_SHF_EXECINSTR | _SHF_WRITE)
        )
        try:
            self._copy()
            self.symbols = {
                symbol.name: self.base + self._starts[symbol.section] + symbol.value
                for symbol in self._symbols
                if symbol.section in self._starts and symbol.name
            }
            self.functions = tuple(
                Function(symbol.name, self.symbols[symbol.name], symbol.size)
                for symbol in self._symbols
                if symbol.section in self._starts and symbol.name and symbol.is_function
            )
            self._relocate()
        except struct.error as cause:
            raise NativeObjectError(f"malformed: {cause}", context="native object") from cause

    def _parse_relocations(self) -> list[tuple[int, int, int, _Symbol, int]]:
        """Return (section, offset, type, symbol, addend) of the loaded sections' relocations."""
        found = []
        for section in self._sections:
            if section.type != _SHT_RELA or not self._sections[section.info].flags & _SHF_ALLOC:
                continue
            if _skipped(self._sections[section.info]):
                continue
            for offset, info, addend in _RELA.iter_unpack(_content(self._data, section)):
                found.append((section.info, offset, info & 0xFFFFFFFF, self._symbols[info >> 32], addend))
        return found

    def _layout(self) -> None:
        """Place read-only data, code, data and the two tables, each kind on pages of its own."""
        self._starts: dict[int, int] = {}
        self.ranges: list[tuple[int, int, int]] = []  # start, end, protection
        position = 0
        kinds = (
            (0, mmap.PROT_READ),
            (_SHF_EXECINSTR, mmap.PROT_READ | mmap.PROT_EXEC),
            (_SHF_WRITE, mmap.PROT_READ | mmap.PROT_WRITE),
        )
        for section in self._sections:
            if section.flags & _SHF_ALLOC and section.flags & _SHF_EXECINSTR and section.flags & _SHF_WRITE:
                raise ValueError(f"section {section.name} is to be writable and executable")
        undefined = [symbol for symbol in self._symbols if symbol.section == _SHN_UNDEF and symbol.name]
        self._stubs: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        for wanted, protection in kinds:
            start = position
            for index, section in enumerate(self._sections):
                if not section.flags & _SHF_ALLOC or _skipped(section):
                    continue
                if section.flags & (_SHF_EXECINSTR | _SHF_WRITE) != wanted:
                    continue
                align = max(section.align, 1)
                if align & (align - 1) or align > _PAGE:
                    raise ValueError(f"section {section.name} is aligned to {align}")
                position += -position % align
                self._starts[index] = position
                position += section.size
                if position > _MAX_IMAGE_BYTES:
                    raise ValueError(f"more than {_MAX_IMAGE_BYTES} bytes")
            if wanted == _SHF_EXECINSTR:
                position += -position % 16
                for symbol in undefined:
                    self._stubs[symbol.name] = position
                    position += 16
            if wanted == 0:
                position += -position % 8
                for name in dict.fromkeys(symbol.name for symbol in self._symbols if symbol.name):
                    self._slots[name] = position
                    position += 8
            position += -position % _PAGE
            if position > start:
                self.ranges.append((start, position, protection))
        self._size = max(position, _PAGE)

    def _copy(self) -> None:
        for index, start in self._starts.items():
            section = self._sections[index]
            if section.type != _SHT_NOBITS:
                self.memory[start : start + section.size] = _content(self._data, section)

    def _address(self, symbol: _Symbol) -> int:
        if symbol.section == _SHN_UNDEF:
            try:
                return self._externals[symbol.name]
            except KeyError as cause:
                raise NativeObjectError(f"nobody defines {symbol.name!r}", context="native object") from cause
        if symbol.section == _SHN_ABS:
            return symbol.value
        if symbol.section not in self._starts:
            raise NativeObjectError(f"{symbol.name!r} is in no loaded section", context="native object")
        return self.base + self._starts[symbol.section] + symbol.value

    def _relocate(self) -> None:
        by_name = {symbol.name: symbol for symbol in self._symbols if symbol.name}
        for name, slot in self._slots.items():
            symbol = by_name[name]
            if symbol.section == _SHN_UNDEF and name not in self._externals:
                continue  # found below if anything refers to it
            if symbol.section in (_SHN_UNDEF, _SHN_ABS) or symbol.section in self._starts:
                struct.pack_into("<Q", self.memory, slot, self._address(symbol) & _U64)
        for name, stub in self._stubs.items():
            self._write_stub(stub, self._slots[name])
        apply = _relocate_x86_64 if self._machine == _EM_X86_64 else _relocate_aarch64
        for section, offset, kind, symbol, addend in self._relocations:
            if offset > self._sections[section].size - 4:
                raise NativeObjectError(f"relocation at {offset} outside of its section", context="native object")
            place = self._starts[section] + offset
            external = symbol.section == _SHN_UNDEF
            target = self._address(symbol)
            slot = self.base + self._slots[symbol.name] if symbol.name else 0
            stub = self.base + self._stubs[symbol.name] if external else target
            apply(self.memory, place, self.base + place, kind, target, stub, slot, addend)

    def _write_stub(self, stub: int, slot: int) -> None:
        if self._machine == _EM_X86_64:
            # jmp *slot(%rip)
            self.memory[stub : stub + 6] = b"\xff\x25" + struct.pack("<i", slot - (stub + 6))
            return
        # adrp x16, slot; ldr x16, [x16, :lo12:slot]; br x16
        pages = ((self.base + slot) >> 12) - ((self.base + stub) >> 12)
        adrp = 0x90000010 | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
        ldr = 0xF9400210 | ((self.base + slot) & 0xFFF) >> 3 << 10
        struct.pack_into("<III", self.memory, stub, adrp, ldr, 0xD61F0200)


def undefined_names(data: bytes) -> frozenset[str]:
    """Return the symbols that an object of this machine leaves to its loader.

    :raises NativeObjectError: malformed, or another machine's
    """
    try:
        sections, _machine = _parse_sections(data, platform.machine())
        symbols = _parse_symbols(data, sections)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as cause:
        raise NativeObjectError(f"malformed: {cause}", context="native object") from cause
    return frozenset(symbol.name for symbol in symbols if symbol.section == _SHN_UNDEF and symbol.name)


def with_absolute_symbols(data: bytes, values: Mapping[str, int]) -> bytes:
    """Return an object in which symbols that were undefined are numbers.

    :raises NativeObjectError: malformed, or another machine's
    """
    changed = bytearray(data)
    try:
        sections, _machine = _parse_sections(data, platform.machine())
        table = next((section for section in sections if section.type == _SHT_SYMTAB), None)
        for index, symbol in enumerate(_parse_symbols(data, sections)):
            if table is not None and symbol.section == _SHN_UNDEF and symbol.name in values:
                at = table.offset + index * _SYMBOL.size
                name, info, other, _section, _value, size = _SYMBOL.unpack_from(data, at)
                _SYMBOL.pack_into(changed, at, name, info, other, _SHN_ABS, values[symbol.name] & _U64, size)
    except (struct.error, IndexError, ValueError, UnicodeDecodeError) as cause:
        raise NativeObjectError(f"malformed: {cause}", context="native object") from cause
    return bytes(changed)


def _map_memory(size: int) -> tuple[mmap.mmap, int]:
    # Private: a data process that is taken over must not be able to change the code of whoever forked it.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _protect(image: LinkedImage) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for start, end, protection in image.ranges:
        if libc.mprotect(ctypes.c_void_p(image.base + start), ctypes.c_size_t(end - start), protection):
            raise NativeObjectError(f"mprotect: errno {ctypes.get_errno()}", context="native object")


def _parse_sections(data: bytes, machine_name: str) -> tuple[list[_Section], int]:
    if len(data) < _HEADER.size or data[:7] != b"\x7fELF\x02\x01\x01":
        raise NativeObjectError("no little-endian ELF64 object", context="native object")
    (_i, kind, machine, _v, _e, _ph, shoff, _f, _eh, _pe, _pn, shentsize, shnum, strndx) = _HEADER.unpack_from(data)
    wanted = {"x86_64": _EM_X86_64, "aarch64": _EM_AARCH64}.get(machine_name)
    if kind != 1 or machine != wanted:
        raise NativeObjectError(f"machine {machine}, expected {wanted} ({machine_name})", context="native object")
    if shentsize != _SECTION.size or shoff + shnum * _SECTION.size > len(data) or strndx >= shnum:
        raise NativeObjectError("section table outside of the file", context="native object")
    raw = [_SECTION.unpack_from(data, shoff + i * _SECTION.size) for i in range(shnum)]
    for _name, section_type, _flags, _addr, offset, size, link, *_rest in raw:
        if section_type not in (0, _SHT_NOBITS) and offset + size > len(data):
            raise NativeObjectError("a section reaches outside of the file", context="native object")
        if link >= shnum:
            raise NativeObjectError("a section links to none", context="native object")
    names = data[raw[strndx][4] : raw[strndx][4] + raw[strndx][5]]
    sections = [
        _Section(_text(names, name), t, flags, offset, size, link, info, align)
        for name, t, flags, _addr, offset, size, link, info, align, _entsize in raw
    ]
    for section in sections:
        if section.type == _SHT_RELA and section.info >= shnum:
            raise NativeObjectError("relocations for no section", context="native object")
    return sections, machine


def _parse_symbols(data: bytes, sections: list[_Section]) -> list[_Symbol]:
    for section in sections:
        if section.type == _SHT_SYMTAB:
            names = _content(data, sections[section.link])
            return [
                _Symbol(_text(names, name), index, value, size, info & 0xF == _STT_FUNC)
                for name, info, _other, index, value, size in _SYMBOL.iter_unpack(_content(data, section))
            ]
    return []


def _content(data: bytes, section: _Section) -> bytes:
    return data[section.offset : section.offset + section.size]


def _text(names: bytes, offset: int) -> str:
    return names[offset : names.index(0, offset)].decode()


def _skipped(section: _Section) -> bool:
    """Unwind tables: nothing here unwinds through compiled code."""
    return section.name == ".eh_frame" or section.size == 0


def _relocate_x86_64(
    image: mmap.mmap | bytearray, place: int, address: int, kind: int, target: int, stub: int, slot: int, addend: int
) -> None:
    if kind == 1:  # R_X86_64_64
        struct.pack_into("<Q", image, place, (target + addend) & _U64)
    elif kind in (2, 4):  # R_X86_64_PC32, R_X86_64_PLT32
        struct.pack_into("<i", image, place, stub + addend - address)
    elif kind in (9, 41, 42):  # R_X86_64_GOTPCREL, _GOTPCRELX, _REX_GOTPCRELX
        struct.pack_into("<i", image, place, slot + addend - address)
    elif kind == 24:  # R_X86_64_PC64
        struct.pack_into("<q", image, place, target + addend - address)
    else:
        raise NativeObjectError(f"relocation type {kind} is not one that our compiler writes", context="native object")


def _relocate_aarch64(
    image: mmap.mmap | bytearray, place: int, address: int, kind: int, target: int, stub: int, slot: int, addend: int
) -> None:
    (word,) = struct.unpack_from("<I", image, place)
    value = target + addend
    if kind == 257:  # R_AARCH64_ABS64
        struct.pack_into("<Q", image, place, value & _U64)
        return
    if kind == 260:  # R_AARCH64_PREL64
        struct.pack_into("<q", image, place, value - address)
        return
    if kind == 261:  # R_AARCH64_PREL32
        struct.pack_into("<i", image, place, value - address)
        return
    if kind in (275, 311):  # R_AARCH64_ADR_PREL_PG_HI21, R_AARCH64_ADR_GOT_PAGE
        pages = ((slot if kind == 311 else value) >> 12) - (address >> 12)
        word = word & 0x9F00001F | (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind in (277, 278, 284, 285, 286, 299):  # R_AARCH64_ADD_ABS_LO12_NC, LDST{8,16,32,64,128}_ABS_LO12_NC
        shift = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}[kind]
        word = word & ~(0xFFF << 10) | ((value & 0xFFF) >> shift) << 10
    elif kind == 312:  # R_AARCH64_LD64_GOT_LO12_NC
        word = word & ~(0xFFF << 10) | ((slot & 0xFFF) >> 3) << 10
    elif kind in (282, 283):  # R_AARCH64_JUMP26, R_AARCH64_CALL26
        word = word & 0xFC000000 | ((stub + addend - address) >> 2 & 0x3FFFFFF)
    else:
        raise NativeObjectError(f"relocation type {kind} is not one that our compiler writes", context="native object")
    struct.pack_into("<I", image, place, word)
