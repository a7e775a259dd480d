"""Objects and IR for tests of what is derived from them: compiled from C, or put together instruction by instruction.

C is compiled by clang alone, so that neither uxdp-cc's refusals nor the lowering stand between a test and its object.
"""

import subprocess
from functools import cache
from pathlib import Path

from tests.elf_forge import SHF_ALLOC, SHT_REL, STB_GLOBAL, STB_LOCAL, STT_FUNC, Elf, instruction
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.facts import ObjectFacts, object_facts
from uxdp_cc.toolchain import find_toolchain, system_headers

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"
SOURCES = {path.stem: path for path in sorted([*CASES.glob("*.c"), *ROOT.glob("examples/*/*.c")])}

HEADER = """\
#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""
PASS = 'SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }\n'

# Instructions by what they do; r are numbers of registers.
LDX_W, LDX_DW, STX_DW, STX_W, ST_DW, MOV, MOV_K, ADD_K, SUB_K = 0x61, 0x79, 0x7B, 0x63, 0x7A, 0xBF, 0xB7, 0x07, 0x17
JA, JA32, JEQ_K, CALL, CALLX, GOTOX, LD_IMM64, LD_ABS = 0x05, 0x06, 0x15, 0x85, 0x8D, 0x0D, 0x18, 0x20
ATOMIC_DW, ATOMIC_W = 0xDB, 0xC3
EXIT = instruction(0x95)


def load(dst: int, src: int, offset: int, code: int = LDX_W) -> bytes:
    """``dst = *(src + offset)``"""
    return instruction(code, dst, src, offset)


def move(dst: int, src: int) -> bytes:
    """``dst = src``"""
    return instruction(MOV, dst, src)


def spill(dst: int, offset: int, src: int) -> bytes:
    """``*(u64 *)(dst + offset) = src``"""
    return instruction(STX_DW, dst, src, offset)


def address(dst: int) -> bytes:
    """``dst = 0 ll``, for a relocation."""
    return instruction(LD_IMM64, dst) + bytes(8)


def call_helper(number: int) -> bytes:
    return instruction(CALL, imm=number)


def call_relocated() -> bytes:
    return instruction(CALL, src=1, imm=-1)


@cache
def clang(source: str, *flags: str) -> bytes:
    """Compile C to an object, with uxdp-cc's defaults; ``flags`` come behind them."""
    toolchain = find_toolchain()
    command = [*toolchain.command, "-target", "bpf", "-O2", "-g", "-mcpu=v3", *toolchain.headers]
    command += ["-fno-ident", "-fdebug-compilation-dir=.", *flags, *system_headers(flags)]
    command += ["-x", "c", "-c", "-", "-o", "-"]
    result = subprocess.run(command, input=source.encode(), capture_output=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


def compile_ir(source: str, *flags: str) -> bytes:
    """Compile C to bitcode."""
    return clang(source, "-emit-llvm", *flags)


def facts_of(source: str, *flags: str) -> ObjectFacts:
    """Return the facts of C that stands behind the usual headers and a license."""
    return object_facts(clang(HEADER + source, *flags))


def object_of(source: str, *flags: str) -> BpfObject:
    """Return the object of C that stands behind the usual headers and a license."""
    return BpfObject(clang(HEADER + source, *flags))


class Assembly:
    """An object of hand-written functions; ``Assembly().function("f", load(0, 1, 0), EXIT).image()``."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}
        self._data: dict[str, bytes] = {}
        self._symbols: list[tuple[str, str, int, int, int, int]] = []
        self._relocations: list[tuple[str, int, str]] = []

    def function(self, name: str, *code: bytes, section: str = "xdp", bind: int = STB_GLOBAL) -> "Assembly":
        """Add a function at the end of a section."""
        start = len(self._code.get(section, b""))
        self._code[section] = self._code.get(section, b"") + b"".join(code)
        self._symbols.append((name, section, start, len(b"".join(code)), STT_FUNC, bind))
        return self

    def subprogram(self, name: str, *code: bytes) -> "Assembly":
        """Add a static function to .text."""
        return self.function(name, *code, section=".text", bind=STB_LOCAL)

    def data(self, section: str, content: bytes, name: str = "", *, kind: int = 1) -> "Assembly":
        """Add a section of data, with a symbol for all of it if it gets a name."""
        self._data[section] = content
        if name:
            self._symbols.append((name, section, 0, len(content), kind, STB_GLOBAL))
        return self

    def extern(self, name: str, bind: int = STB_GLOBAL) -> "Assembly":
        """Add an undefined symbol."""
        self._symbols.append((name, "", 0, 0, 0, bind))
        return self

    def relocate(self, slot: int, symbol: str, section: str = "xdp") -> "Assembly":
        """Let the instruction at a slot refer to a symbol."""
        self._relocations.append((section, slot * 8, symbol))
        return self

    def image(self) -> bytes:
        """Return the object."""
        elf = Elf()
        indices = {"": 0}
        for name, code in self._code.items():
            indices[name] = elf.code(name, code)
        for name, content in self._data.items():
            indices[name] = elf.add(name, content, flags=SHF_ALLOC)
        for name, section, value, size, kind, bind in self._symbols:
            elf.symbol(name, indices[section], value, size, kind=kind, bind=bind)
        numbers = {symbol[0]: index + 1 for index, symbol in enumerate(self._symbols)}
        targets = sorted({section for section, _offset, _symbol in self._relocations})
        # The symbol table comes behind its names, which come behind the tables of relocations.
        table = 1 + len(self._code) + len(self._data) + len(targets) + 1
        for target in targets:
            entries = b"".join(
                offset.to_bytes(8, "little") + (10).to_bytes(4, "little") + numbers[symbol].to_bytes(4, "little")
                for section, offset, symbol in self._relocations
                if section == target
            )
            elf.add(f".rel{target}", entries, kind=SHT_REL, link=table, info=indices[target], entry_size=16)
        return elf.image()

    def facts(self) -> ObjectFacts:
        """Return the facts of the object."""
        return object_facts(self.image())
