"""Give BPF inline assembly the form of ordinary IR, when a bundle is built.

llvmlite's BPF backend cannot parse assembly, and no other backend could do anything with it. But what XDP programs
write in it are a few instructions whose results the compiler shall not reason about, so that the verifier finds in the
object the very checks that the author wrote: masks, comparisons, loads of the context, calls. All of that has a form in
IR, and what is opaque about it is kept by empty assembly, which hands a value on and tells the compiler nothing.

- A result of arithmetic is opaque, and so is what it is made of. A comparison is a branch. Accesses are volatile.
- Operands are registers of 64 bits. Of a narrower number the bits above are zero; what was cut to 16 bits for the
  assembly alone, as bpf_cmp_likely does to have any register, is whole. An output that is never written is zero.
- ``may_goto`` has no form in IR, and stays what it is: ``callbr`` of that one instruction (see may_goto).

What has no such form is left alone: whoever builds then takes clang's object (see ir_rules).
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from .assembly_translation import Assembly, FunctionContext, Module, translated
from .bpf_assembly import AssemblyError
from .ir_promises import Signature, UndefinedIrError, plain_header
from .ir_syntax import NAME, closing, end_of_type, first_block, split_arguments

_ASM: Final = re.compile(
    rf"^  (?:(?P<result>%{NAME}) = )?(?:(?:tail|musttail|notail) )?(?P<word>call|callbr) (?:\w+ )*?"
    r"(?P<type>void|ptr|i\d+|\{[^}]*\}) asm (?P<sideeffect>sideeffect )?(?:alignstack )?"
    r'"(?P<template>[^"]*)", "(?P<constraints>[^"]*)"\('
)
_DESTINATIONS: Final = re.compile(r"^ +to label (?P<normal>%\S+) \[(?P<others>.*?)\]")
_LABEL: Final = re.compile(rf"^(?P<name>{NAME}):")
_TRUNC: Final = re.compile(rf"^  (?P<name>%{NAME}) = trunc (?:n[us]w )*i(?P<from>\d+) (?P<value>\S+) to i(?P<to>\d+)\b")
_EXPRESSION: Final = re.compile(r"(?:getelementptr|inttoptr|ptrtoint|bitcast|trunc|add|sub|xor)\b[^()]*\(.*\)$")
_EDGE: Final = re.compile(rf", (?P<block>%{NAME}) \]")
_CUT_BITS: Final = 16


def with_plain_assembly(text: str) -> tuple[str, str]:
    """Return the text of a module in which assembly is IR, and why the first that has no form there has none.

    :param text: as LLVM printed it
    """
    if " asm " not in text:
        return text, ""
    made: list[str] = []
    body: list[str] = []
    prefix = "asm"
    while f"%{prefix}." in text or f"\n{prefix}." in text:
        prefix += "x"
    module = Module(prefix, _signatures(text))
    for line in text.split("\n"):
        if body:
            body.append(line)
            if line == "}":
                made += _Rewriter(body, module).rewritten() if any(" asm " in line for line in body) else body
                body = []
        elif line.startswith("define "):
            body = [line]
        else:
            made.append(line)
    declared = {line.partition("(")[0].rpartition(" ")[2] for line in made if line.startswith("declare ")}
    made += [declaration for name, declaration in module.declarations.items() if name not in declared]
    return "\n".join([*made, ""]), module.reason


def _signatures(text: str) -> dict[str, Signature]:
    """Return the types of the module's functions."""
    found = {}
    for line in text.split("\n"):
        if line.startswith(("define ", "declare ")) and "@llvm." not in line:
            with suppress(UndefinedIrError):  # what cannot be called by name is refused elsewhere
                _plain, name, signature = plain_header(line)
                found[name] = signature
    return found


class _Rewriter:
    """Rewrites the assembly of one function."""

    def __init__(self, lines: list[str], module: Module) -> None:
        cut = {
            match["name"]: (f"i{match['from']}", match["value"])
            for line in lines
            if " = trunc " in line and (match := _TRUNC.match(line)) and int(match["to"]) <= _CUT_BITS
        }
        self._lines = lines
        self._context = FunctionContext(module, first_block(lines[0]), cut)

    def rewritten(self) -> Iterator[str]:
        """Yield the function's lines."""
        renamed: dict[tuple[str, str], str] = {}  # the block of a phi, or nothing for all; where an edge began
        made: list[str] = []
        context = self._context
        skipped = False
        for line, following in zip(self._lines, [*self._lines[1:], ""], strict=True):
            if skipped:
                skipped = False
                continue
            if label := _LABEL.match(line):
                context.block = f"%{label['name']}"
            match = _ASM.match(line) if " asm " in line else None
            if match is None:
                made.append(line)
                continue
            before = context.block
            assembly = _read(match, line, following)
            try:
                made += translated(assembly, context)
            except AssemblyError as error:
                context.module.reason = context.module.reason or str(error)
                made.append(line)
                context.block = before
                continue
            skipped = match["word"] == "callbr"
            if context.block != before:
                renamed[assembly.normal, before] = context.block
        return _with_edges(made, renamed, context.module.prefix) if renamed else iter(made)


def _read(match: re.Match[str], line: str, following: str) -> Assembly:
    """Return an asm statement from its line, and of a callbr the one that says where it goes."""
    start = match.end() - 1
    end = closing(line, start)
    arguments = []
    for piece in split_arguments(line[start + 1 : end]):
        kind_end = end_of_type(piece, 0)
        expression = _EXPRESSION.search(piece)
        value = expression[0] if expression is not None else piece.rpartition(" ")[2]
        arguments.append((piece[:kind_end], value))
    if match["word"] == "call":
        return Assembly(match, arguments, line[end + 1 :])
    destinations = _DESTINATIONS.match(following)
    if destinations is None:
        raise AssemblyError(f"a callbr that cannot be read: {following.strip()[:60]!r}")
    others = tuple(label.removeprefix("label ") for label in split_arguments(destinations["others"]))
    return Assembly(match, arguments, following[destinations.end() :], destinations["normal"], others)


def _with_edges(lines: list[str], renamed: dict[tuple[str, str], str], prefix: str) -> Iterator[str]:
    """Let phis name the block in which an edge now begins: the last part of one that was split."""
    here = ""

    def last(match: re.Match[str]) -> str:
        block = match["block"]
        while ("", block) in renamed:
            block = renamed["", block]
        return f", {renamed.get((here, block), block)} ]"

    for line in lines:
        if label := _LABEL.match(line):
            here = f"%{label['name']}"
        yield _EDGE.sub(last, line) if " = phi " in line and not line.startswith(f"  %{prefix}.") else line
