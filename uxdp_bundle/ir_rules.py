"""What IR may hold: the allow-list that every module passes before it is lowered.

Equal code under the BPF backend says nothing about what the same IR does on another target. Assembly, constructors,
data in front of functions, unresolved externals, target intrinsics, and attributes or flags that make another backend
insert calls are means to say one thing to the one and another to the other, so a module with any of them is refused.
Runs in the confined child (see lowering), on parsed modules.

LLVM's own textual form is what is looked at, for llvmlite does not offer the rest. In it a string holds no quote and
no line break (they are written \\22 and \\0A), so what stands between quotes can be told from what does not. LLVM
forgets to escape some strings (names of attributes, of garbage collectors), with which a module could pretend to be
another one; so the text is read again, and must then be the text of what was read.

Reference: LLVM Language Reference Manual
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import llvmlite.binding as llvm

from . import may_goto

_TRIPLE: Final = re.compile(r"bpf(el)?(-.*)?")
# What the BPF backend of LLVM 14 to 22 lowers for; another layout would give structures other offsets natively.
_DATA_LAYOUT: Final = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
_ASM: Final = re.compile(r"(?:^|[ (])asm (?:sideeffect |alignstack |inteldialect |unwind )*$")
# Constraints of assembly without instructions. What it clobbers is named as BPF or clang for it names it.
_CONSTRAINT: Final = re.compile(r"=?&?[rgimn]+|=?\*m|\d|~\{(?:memory|cc|[rw](?:10|\d))\}")
# Bytes or code beside a function that the BPF backend may leave out.
_ANNEX: Final = re.compile(r" (prefix|prologue|personality|gc) ")
_ALIAS: Final = re.compile(r"^@[^=]* = [^@%{\[]*?\b(alias|ifunc) ")
_BORROWED: Final = re.compile(r"^(?:define|@[^=]* =) (?:[a-z_]+ )*?(available_externally|common) ")
_DEFINE_IT: Final = {
    "available_externally": "give it a body with static inline",
    "common": "give it a value, or compile with -fno-common",
}
_THREAD_LOCAL: Final = re.compile(r"^@[^=]* = (?:[a-z_]+ )*?thread_local\b")
_NAKED: Final = re.compile(r"[{ ]naked ")
_ATTRIBUTE: Final = re.compile(r'"([^"]*)"(?:="[^"]*")?')
_PREDECESSORS: Final = "; preds = "
_MODULE_FLAGS: Final = re.compile(r"^!llvm\.module\.flags = !\{(.*)\}$", re.MULTILINE)
_MODULE_FLAG: Final = re.compile(r'^!(\d+) = (?:distinct )?!\{i32 \d+, !"([^"]*)", ', re.MULTILINE)

# @"llvm.xdp_md:0:4$0:1", @"llvm.btf_type_id.0$7": CO-RE accesses, which the BPF backend turns into relocations
_CORE_GLOBAL: Final = re.compile(r"llvm\..+\$.*")
_EXTERNAL_SECTIONS: Final = frozenset({".ksyms", ".kconfig"})
# Names that begin with a dot have meanings for linkers and loaders (.init_array, for one); these have BPF's.
_FUNCTION_SECTION: Final = re.compile(r"[^.].*|\.text(?:\..*)?|\.ksyms")
_VARIABLE_SECTION: Final = re.compile(
    r"[^.].*|\.(?:maps|ksyms|kconfig)|\.(?:data|rodata|bss|struct_ops|arena|addr_space)(?:\..*)?"
)
_INTRINSIC: Final = re.compile(
    r"llvm\.(?:"
    r"dbg\..*|lifetime\..*|invariant\..*|experimental\.noalias\.scope\.decl|(?:ptr\.|var\.)?annotation.*"
    r"|assume|expect\..*|sideeffect|donothing|is\.constant\..*|objectsize\..*|fake\.use|pseudoprobe|prefetch\..*"
    r"|memcpy\..*|memmove\..*|memset\..*"
    r"|bswap\..*|bitreverse\..*|ctpop\..*|ctlz\..*|cttz\..*|fshl\..*|fshr\..*|abs\..*|[us](?:min|max|cmp)\..*"
    r"|[us](?:add|sub|mul)\.with\.overflow\..*|[us](?:add|sub|shl)\.sat\..*|ptrmask\..*"
    r"|vector\.reduce\.(?:add|mul|and|or|xor|[us]min|[us]max)\..*"
    r"|bpf\.(?:passthrough|compare|preserve|btf\.type\.id|getelementptr\.and)\b.*|preserve\..*"
    r"|trap|ubsantrap|debugtrap"
    r")"
)
# String attributes that clang 14 to 22 gives to functions and calls for BPF, and that make no backend call anything.
_ATTRIBUTES: Final = re.compile(
    r"frame-pointer|no-frame-pointer-elim(?:-non-leaf)?|stackrealign|stack-protector-buffer-size|warn-stack-size"
    r"|target-cpu|target-features|tune-cpu|min-legal-vector-width|prefer-vector-width"
    r"|no-builtins|no-builtin-.*|no-jump-tables|disable-tail-calls|no-inline-line-tables|function-inline-.*"
    r"|no-trapping-math|[a-z-]*fp-math(?:-f32)?|less-precise-fpmad|use-soft-float|reciprocal-estimates"
    r"|btf_ama|btf_type_id|bpf_fastcall|uniform-work-group-size|use-sample-profile|profile-sample-accurate"
    r"|sample-profile-suffix-elision-policy|loader-replaceable|llvm\.assume"
)
_FLAGS: Final = frozenset(
    (
        *("wchar_size", "short_enum", "min_enum_size", "Dwarf Version", "DWARF64", "Debug Info Version"),
        *("debug-info-assignment-tracking", "frame-pointer", "uwtable", "PIC Level", "PIE Level", "Code Model"),
        *("direct-access-external-data", "RtLibUseGOT", "EnableSplitLTOUnit", "ThinLTO", "UnifiedLTO"),
        *("Virtual Function Elim", "ProfileSummary", "MaxTLSAlign"),
    )
)


class Violation(NamedTuple):
    """A construct that IR must not hold; ``kind`` is one word for programs, ``message`` a sentence for people."""

    kind: str
    message: str


def find_violation(module: Any) -> Violation | None:
    """Return the first thing in a parsed llvmlite module that a bundle's IR must not hold."""
    if not _TRIPLE.fullmatch(module.triple):
        return Violation("triple", f"target triple {module.triple!r}, expected bpf or bpfel")
    if module.data_layout != _DATA_LAYOUT:
        return Violation("data-layout", f"data layout {module.data_layout!r}, expected {_DATA_LAYOUT!r}")
    text = str(module)
    lines = text.split("\n")
    if not _is_faithful(text, lines):
        return Violation("text", "it is not what its textual form says")
    for violations in (_asm(lines), _headers(lines), _flags(text), _variables(module), _functions(module)):
        for violation in violations:
            return violation
    return None


def _is_faithful(text: str, lines: list[str]) -> bool:
    try:
        again = str(llvm.parse_assembly(text, llvm.create_context()))
    except RuntimeError:
        return False
    return _comparable(lines) == _comparable(again.split("\n"))


def _comparable(lines: list[str]) -> list[str]:
    """Return the lines without what reading them again may change: the module's name, the order of predecessors."""
    kept = []
    for line in lines[1:] if lines[0].startswith("; ModuleID") else lines:
        label, comment, predecessors = line.partition(_PREDECESSORS)
        kept.append(label + comment + ", ".join(sorted(predecessors.split(", "))) if comment else line)
    return kept


def _asm(lines: Iterable[str]) -> Iterator[Violation]:
    """Look for assembly, before anything else: who builds a bundle handles a source with assembly in its own way."""
    for line in lines:
        if line.startswith("module asm "):
            yield Violation("module-asm", f"module-level assembly {line[11:][:60]}")
    for line in lines:
        if " asm " in line and not may_goto.IN_IR.match(line):
            parts = line.split('"')
            for index, (before, string) in enumerate(zip(parts[::2], parts[1::2], strict=False)):
                if not _ASM.search(before):
                    continue
                if string:
                    yield Violation("inline-asm", f"BPF inline assembly {string[:60]!r}")
                elif not _hands_on(parts[2 * index + 3] if len(parts) > 2 * index + 3 else ""):
                    yield Violation("inline-asm", f"assembly whose operands are not known: {line.strip()[:80]!r}")


def _hands_on(constraints: str) -> bool:
    """Whether empty assembly gives back what it is given, and nothing else: each output is tied to an input."""
    pieces = constraints.split(",") if constraints else []
    outputs = [piece for piece in pieces if piece.startswith("=") and "*" not in piece]
    tied = {int(piece) for piece in pieces if piece.isdecimal()}
    return all(map(_CONSTRAINT.fullmatch, pieces)) and tied == set(range(len(outputs)))


def _headers(lines: Iterable[str]) -> Iterator[Violation]:
    """Look at the lines that introduce variables, functions and attributes."""
    for line in lines:
        is_function = line.startswith(("define ", "declare "))
        if is_function or line.startswith("@"):
            yield from _definition(line, is_function=is_function)
        elif line.startswith("attributes #"):
            if _NAKED.search(line):
                yield Violation("naked", "a naked function, which has no frame of its own")
            for attribute in _ATTRIBUTE.finditer(line):
                if not _ATTRIBUTES.fullmatch(attribute[1]):
                    yield Violation("attribute", f"attribute {attribute[1]!r} is not one that XDP programs need")


def _definition(line: str, *, is_function: bool) -> Iterator[Violation]:
    parts = line.split('"')
    code = '""'.join(parts[::2])
    what = "function" if is_function else "variable"
    name = _name(line)
    if found := _ALIAS.search(code):
        yield Violation(found[1], f"{name!r} is an {found[1]}: give it a body of its own")
    if found := _BORROWED.search(code):
        yield Violation("external", f"{what} {name!r} is {found[1]}: {_DEFINE_IT[found[1]]}")
    if _THREAD_LOCAL.search(code):
        yield Violation("thread-local", f"variable {name!r} is thread-local, and programs run in no thread")
    if is_function and (found := _ANNEX.search(code)):
        yield Violation("annex", f"function {name!r} has {found[1]} data")
    section = _section(line)
    if section and not (_FUNCTION_SECTION if is_function else _VARIABLE_SECTION).fullmatch(section):
        yield Violation("section", f"{what} {name!r} is in section {section!r}, which has no meaning for BPF")


def _flags(text: str) -> Iterator[Violation]:
    """Look at the module flags: some make a backend instrument every function."""
    found = _MODULE_FLAGS.search(text)
    names = dict(_MODULE_FLAG.findall(text))
    for reference in found[1].split(", ") if found and found[1] else ():
        name = names.get(reference.removeprefix("!"), "")
        if name not in _FLAGS:
            yield Violation("module-flag", f"module flag {name!r} is not one that XDP programs need")


def _variables(module: Any) -> Iterator[Violation]:
    for variable in module.global_variables:
        if variable.name in ("llvm.global_ctors", "llvm.global_dtors"):
            yield Violation("constructors", f"constructors or destructors ({variable.name})")
        external = variable.is_declaration and not _CORE_GLOBAL.fullmatch(variable.name)
        if external and _section(str(variable)) not in _EXTERNAL_SECTIONS:
            yield Violation("external", f"variable {variable.name!r} is declared, but defined nowhere")


def _functions(module: Any) -> Iterator[Violation]:
    for function in module.functions:
        if not function.is_declaration:
            continue
        if function.name.startswith("llvm."):
            if not _INTRINSIC.fullmatch(function.name):
                yield Violation("intrinsic", f"intrinsic {function.name} is not one that XDP programs need")
        elif _section(str(function)) not in _EXTERNAL_SECTIONS:
            yield Violation("external", f"function {function.name!r} is declared, but defined nowhere")


def _section(text: str) -> str:
    """Return the section that a definition or declaration asks for, or nothing."""
    parts = text.split('"')
    for before, string in zip(parts[::2], parts[1::2], strict=False):
        if before.endswith((" section ", ",section ")):
            return string
    return ""


def _name(line: str) -> str:
    """Return the name that a line defines, for messages."""
    found = re.search(r'@(?:"([^"]*)"|([\w.$-]+))', line)
    return "" if found is None else found[1] or found[2]
