"""A module of textual LLVM IR, cut into functions and instructions.

llvmlite parses and prints IR but cannot change it, so changes are made to the text that LLVM printed, and LLVM parses
and verifies the result. Only LLVM's own printer feeds this: one instruction per line, canonical spacing, quotes inside
of strings escaped as \\22. Nothing is understood here but where things begin and end.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from uxdp_bundle.ir_syntax import closing, split_arguments

__all__ = ["Function", "Module", "closing", "parse_module", "result_of", "split_arguments"]

# Parameters' attributes have brackets of their own: captures(none), initializes((0, 4)).
_DEFINE: Final = re.compile(r"^define .*?(?P<result>\w+) @(?P<name>\"[^\"]*\"|[-\w$.]+)(?P<open>\().*\{$")
_RESULT: Final = re.compile(r"^  (?P<name>%(?:\"[^\"]*\"|[-\w$.]+)) = (?P<rest>.*)$")
_ATTACHED: Final = re.compile(
    r", !(?:dbg|DIAssignID|llvm\.loop|srcloc|heapallocsite|annotation|preserve\.access\.index) !\d+"
)
_LABEL: Final = re.compile(r'^(?:"[^"]*"|[-\w$.]+):')
_NAMED_NUMBER: Final = re.compile(r"%v\d+")
_NUMBERED_TYPE: Final = re.compile(r"^%\d+ = type ", re.MULTILINE)
_NUMBERED_VALUE: Final = re.compile(r"%(\d+)\b")
_NUMBERED_LABEL: Final = re.compile(r"^(\d+):")
_METADATA_NODE: Final = re.compile(r"^!(\d+) = ")
_METADATA_REFERENCE: Final = re.compile(r"!(\d+)\b")


@dataclass(slots=True)
class Function:
    """One function definition: its header line, and the lines of its body, of which the first is a label."""

    name: str
    header: str
    lines: list[str]

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters, such as ``%v0``, in order."""
        names = [piece.rsplit(" ", 1)[-1] for piece in self._declared_parameters()]
        return [name if name.startswith("%") else "" for name in names]

    @property
    def parameter_types(self) -> list[str]:
        """The types of the parameters, such as ``i32``, in order."""
        return [piece.split(" ", 1)[0] for piece in self._declared_parameters()]

    @property
    def result_type(self) -> str:
        """The type that the function returns; of a structure only its last part."""
        return self._definition()["result"]

    def _declared_parameters(self) -> list[str]:
        start = self._definition().start("open")
        return split_arguments(self.header[start + 1 : closing(self.header, start)])

    def _definition(self) -> re.Match[str]:
        match = _DEFINE.match(self.header)
        assert match is not None  # noqa: S101  # the header was found by this very pattern
        return match


@dataclass(slots=True)
class Module:
    """The text of a module: everything outside of functions line by line, functions in between."""

    items: list[str | Function] = field(default_factory=list)

    @property
    def functions(self) -> Iterator[Function]:
        """The function definitions in order."""
        return (item for item in self.items if isinstance(item, Function))

    def __str__(self) -> str:
        return "\n".join(
            item if isinstance(item, str) else "\n".join((item.header, *item.lines, "}")) for item in self.items
        )


def parse_module(text: str) -> Module:
    """Cut the text of a module, without its debug information, into functions and other lines."""
    if _NUMBERED_TYPE.search(text):
        raise ValueError("a type without a name: its number cannot be told from a value's")
    module = Module()
    function: Function | None = None
    for line in text.splitlines():
        if function is not None:
            if not function.lines and not _LABEL.match(line):
                # The first block's number follows the unnamed parameters'; once values have names it needs one too.
                unnamed = [name for name in function.parameters if _NAMED_NUMBER.fullmatch(name)]
                function.lines.append(f"v{len(unnamed)}:")
            if line == "}":
                module.items.append(function)
                function = None
            elif not line.startswith("    #dbg_"):
                function.lines.append(_named(_ATTACHED.sub("", line)))
            continue
        match = _DEFINE.match(line)
        if match is not None:
            function = Function(match["name"], _named(re.sub(r" !dbg !\d+", "", line)), [])
        else:
            module.items.append(re.sub(r", !dbg !\d+", "", line))
    _drop_unused_metadata(module)
    return module


def _named(line: str) -> str:
    """Give the unnamed values of a line names: LLVM demands that numbers are in order, so nothing could be moved."""
    return _NUMBERED_LABEL.sub(r"v\1:", _NUMBERED_VALUE.sub(r"%v\1", line))


def result_of(line: str) -> tuple[str, str] | None:
    """Return (name, instruction) of a line that defines a value, such as ``("%3", "load i32, ptr %2, align 4")``."""
    match = _RESULT.match(line)
    return (match["name"], match["rest"]) if match is not None else None


def _drop_unused_metadata(module: Module) -> None:
    """Remove named metadata and every node that no remaining line refers to: most of it is debug information."""
    nodes: dict[str, str] = {}
    kept: list[str | Function] = []
    for item in module.items:
        if isinstance(item, str) and item.startswith("!"):
            match = _METADATA_NODE.match(item)
            if match is not None:
                nodes[match[1]] = item
            continue
        kept.append(item)
    work = [number for item in kept for number in _METADATA_REFERENCE.findall(_text(item))]
    needed: set[str] = set()
    while work:
        number = work.pop()
        if number not in needed and number in nodes:
            needed.add(number)
            work += _METADATA_REFERENCE.findall(nodes[number].partition(" = ")[2])
    module.items = kept + [nodes[number] for number in sorted(needed, key=int)]


def _text(item: str | Function) -> str:
    return item if isinstance(item, str) else "\n".join((item.header, *item.lines))
