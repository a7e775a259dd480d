"""Remove the promises that textual IR makes to optimisers: attributes, flags, metadata.

What is known to be harmless stays, everything else goes: a promise that is kept need not be made, and one that is
broken makes the program mean something else on every backend (see defined_ir).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .ir_syntax import NAME, closing, end_of_type, split_arguments

_FLAGS: Final = re.compile(
    r"(?<= )(?:(?:inbounds|nuw|nusw|nsw|exact|disjoint|nneg|samesign|nnan|ninf|nsz|arcp|contract|afn|reassoc|fast"
    r"|inrange\([^()]*\)) )+"
)
_UNDEFINED: Final = re.compile(r"(?<![\w.$%@!\-])(?:undef|poison)(?![\w.$\-:])")
_METADATA: Final = re.compile(r",? !(?P<kind>[a-zA-Z_][\w.]*) !\d+")
_KEPT_METADATA: Final = frozenset({"dbg", "DIAssignID", "llvm.preserve.access.index"})
_GROUP: Final = re.compile(r"^(?P<head>attributes #\d+ = \{ )(?P<body>.*) \}$")
_GROUP_WORD: Final = re.compile(r'"[^"]*"(?:="[^"]*")?|\w+(?:=\d+|\((?:[^()"]|\([^()]*\))*\))?')
# These say how to compile, not what may be assumed. There are no exceptions in BPF, so nounwind is true.
_KEPT_ATTRIBUTES: Final = frozenset(
    (
        *("noinline", "alwaysinline", "inlinehint", "optnone", "optsize", "minsize", "cold", "hot"),
        *("nounwind", "noduplicate", "nomerge", "convergent", "nobuiltin", "builtin"),
    )
)
_HEADER: Final = re.compile(
    rf"^(?P<word>define|declare) (?P<metadata>(?:![\w.]+ !\d+ )*)(?P<before>[^@]*)@(?P<name>{NAME})\("
)
_DEBUG: Final = re.compile(r"!dbg !\d+")
_LINKAGE: Final = frozenset(
    (
        *("private", "internal", "available_externally", "linkonce", "weak", "common", "appending", "extern_weak"),
        *("linkonce_odr", "weak_odr", "external", "dso_local", "dso_preemptable", "default", "hidden", "protected"),
    )
)
_TYPE: Final = re.compile(
    r"(?:void|ptr|i\d+|half|bfloat|float|double|fp128|x86_fp80|ppc_fp128|metadata|token|label)(?![\w(])|[%{<\[]"
)
_ATTRIBUTE: Final = re.compile(r'(?:"[^"]*"(?:="[^"]*")?|align \d+|cc \d+|[a-zA-Z_]\w*) *')
_VALUE: Final = re.compile(
    r"[%@!{<\[]|[-+]?\d|c\"|f0x|(?:null|true|false|zeroinitializer|none|splat|asm|getelementptr|inttoptr|ptrtoint"
    r"|ptrtoaddr|bitcast|addrspacecast|trunc|add|sub|xor|blockaddress|dso_local_equivalent|no_cfi|ptrauth"
    r"|extractelement|insertelement|shufflevector)(?![\w.])"
)
# Arguments that the call copies, or that a convention of its own passes: BPF has none of these.
_BY_VALUE: Final = re.compile(r"(?:byval|byref|inalloca|preallocated|swift\w+|nest)\b")
_NAME_AT_END: Final = re.compile(rf"%{NAME}$")
_TAIL: Final = re.compile(
    r"(?P<kept>(?:local_)?unnamed_addr|#\d+|section \"[^\"]*\"|comdat(?:\([^()]*\))?|align \d+|!dbg !\d+|\{)"
    r"|\"[^\"]*\"|[^\s\"]+"
)
_CALL: Final = re.compile(rf"^(?P<lead>  (?:%{NAME} = )?)(?:(?:tail|musttail|notail) )?call (?P<rest>.*)$")
# How wide a block is copied, which BPF code shows, and what a CO-RE access is about: not attributes but operands.
_ALIGN: Final = re.compile(r"align \d+")
_ELEMENT_TYPE: Final = re.compile(r"elementtype\((?:[^()]|\([^()]*\))*\)")
_CALLEE: Final = re.compile(rf"[@%]{NAME}")
_CALL_END: Final = re.compile(r"(?P<groups>(?: #\d+)*)(?P<metadata>(?:, !.*)?)$")


class UndefinedIrError(Exception):
    """IR whose meaning is not defined and cannot be; ``kind`` is one word for programs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Signature:
    """How a function is called: its types, results first."""

    result: str
    parameters: tuple[str, ...]


def plain_constants(line: str) -> str:
    """Return a line without flags and attached metadata, with zero for what is undefined."""
    return _METADATA.sub(_kept_metadata, outside_of_strings(line, _without_flags))


def plain_group(line: str) -> str:
    """Return a group of attributes without those that promise something; other lines as they are."""
    match = _GROUP.match(line)
    if match is None:
        return line
    kept = [word for word in _GROUP_WORD.findall(match["body"]) if word[0] == '"' or word in _KEPT_ATTRIBUTES]
    return f"{match['head']}{' '.join(kept)} }}"


def plain_header(line: str) -> tuple[str, str, Signature]:
    """Return the line that begins a function without promises, the function's name, and its type."""
    match = _HEADER.match(line)
    if match is None:
        raise UndefinedIrError("function", f"a function that cannot be read: {line[:80]!r}")
    start = match.end() - 1
    end = closing(line, start)
    before = match["before"].strip()
    linkage: list[str] = []
    position = _skip_attributes(before, 0, _TYPE, linkage)
    result = before[position:].strip()
    parameters, kinds = [], []
    for piece in split_arguments(line[start + 1 : end]):
        if piece == "...":
            raise UndefinedIrError("variadic", f"function {match['name']} takes any number of arguments")
        kind = piece[: end_of_type(piece, 0)]
        name = _NAME_AT_END.search(piece, len(kind))
        _check_by_value(piece[len(kind) : len(piece) if name is None else name.start()], match["name"])
        kinds.append(kind)
        parameters.append(f"{kind} {name[0]}" if name is not None else kind)
    tail = [found[0] for found in _TAIL.finditer(line, end + 1) if found["kept"]]
    head = " ".join((match["word"], *_DEBUG.findall(match["metadata"]), *linkage, result))
    plain = f"{head} @{match['name']}({', '.join(parameters)})" + "".join(f" {word}" for word in tail)
    return plain, match["name"], Signature(result, tuple(kinds))


def plain_call(line: str, signatures: dict[str, Signature], where: str) -> str:
    """Return a call without promises, by the C convention; lines without metadata other than the allowed.

    :param signatures: the types of the module's functions: a call by another type has no meaning
    """
    match = _CALL.match(line)
    if match is None:
        return line
    rest = match["rest"]
    position = _skip_attributes(rest, 0, _TYPE, [])
    result_end = end_of_type(rest, position)
    result = rest[position:result_end]
    callee_start = result_end + 1
    if rest.startswith("(", callee_start):  # a function type, printed where any number of arguments may follow
        callee_start = closing(rest, callee_start) + 2
    start = callee_start
    if rest[callee_start] in "@%":
        name = _CALLEE.match(rest, callee_start)
        start = name.end() if name is not None else start
    elif rest.startswith("inttoptr (", callee_start):
        start = closing(rest, rest.index("(", callee_start)) + 1
    elif rest.startswith("asm ", callee_start):
        return line
    callee = rest[callee_start:start]
    if rest[start : start + 1] != "(":
        raise UndefinedIrError("call", f"function {where}: a call that cannot be read: {line.strip()[:80]!r}")
    end = closing(rest, start)
    arguments, kinds = [], []
    for piece in split_arguments(rest[start + 1 : end]):
        kind = piece[: end_of_type(piece, 0)]
        kinds.append(kind)
        kept = None
        if callee.startswith("@llvm."):
            kept = _ALIGN if callee.startswith("@llvm.mem") else _ELEMENT_TYPE
        arguments.append(piece if kind == "metadata" else _plain_argument(piece, kind, where, kept))
    signature = signatures.get(callee[1:]) if callee.startswith("@") else None
    if signature is not None and signature != Signature(result, tuple(kinds)):
        raise UndefinedIrError("call", f"function {where} calls {callee} by another type than its own")
    tail = _CALL_END.fullmatch(rest, end + 1)
    if tail is None:
        raise UndefinedIrError("call", f"function {where}: a call with a bundle: {line.strip()[:80]!r}")
    return f"{match['lead']}call {result} {callee}({', '.join(arguments)}){tail['groups']}{tail['metadata']}"


def outside_of_strings(line: str, change: Callable[[str], str]) -> str:
    """Apply ``change`` to what of a line is not between quotes."""
    if '"' not in line:
        return change(line)
    parts = line.split('"')
    return '"'.join(part if index % 2 else change(part) for index, part in enumerate(parts))


def _without_flags(text: str) -> str:
    if "undef" in text or "poison" in text:
        text = _UNDEFINED.sub("zeroinitializer", text)
    return _FLAGS.sub("", text)


def _kept_metadata(match: re.Match[str]) -> str:
    return match[0] if match["kind"] in _KEPT_METADATA else ""


def _skip_attributes(text: str, position: int, stop: re.Pattern[str], linkage: list[str]) -> int:
    """Return where what ``stop`` describes begins, behind linkage and attributes; linkage words are collected."""
    while stop.match(text, position) is None:
        word = _ATTRIBUTE.match(text, position)
        if word is None:
            raise UndefinedIrError("attribute", f"an attribute that cannot be read: {text[position : position + 60]!r}")
        if word[0].strip() in _LINKAGE:
            linkage.append(word[0].strip())
        position = word.end()
        if text[position : position + 1] == "(":
            position = closing(text, position) + 1
            while text[position : position + 1] == " ":
                position += 1
    return position


def _plain_argument(piece: str, kind: str, where: str, kept: re.Pattern[str] | None) -> str:
    start = len(kind) + 1
    value = _skip_attributes(piece, start, _VALUE, [])
    attributes = piece[start:value]
    _check_by_value(attributes, where)
    found = kept.search(attributes) if kept is not None else None
    return f"{kind} {found[0] + ' ' if found is not None else ''}{piece[value:]}"


def _check_by_value(attributes: str, where: str) -> None:
    found = _BY_VALUE.search(attributes)
    if found is not None:
        raise UndefinedIrError("by-value", f"function {where} has an argument that is {found[0]}")
