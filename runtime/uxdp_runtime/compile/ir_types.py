"""Sizes of IR types and places of their parts, as BPF lays them out: what a getelementptr adds to its pointer.

Every type is aligned to its size, structures to their widest part, packed ones to a byte.

References: LLVM Language Reference Manual, "Data Layout", "Type System"; the BPF layout is that of uxdp_bundle.ir_rules
"""

import re
from collections.abc import Sequence
from typing import Final

from .ir_text import Module, split_arguments

_DEFINITION: Final = re.compile(r'^(?P<name>%(?:"[^"]*"|[-\w$.]+)) = type (?P<body>.*)$')
_SEQUENCE: Final = re.compile(r"[\[<](?P<count>\d+) x (?P<element>.+)[\]>]")
_INTEGER: Final = re.compile(r"i(?P<bits>\d+)")
_POINTER_BYTES: Final = 8
_MAX_ALIGN: Final = 16
_FLOATS: Final = {"half": 2, "bfloat": 2, "float": 4, "double": 8}


class TypeLayouts:
    """The layouts of a module's types. A type is its text, such as ``[4 x %struct.pair]``."""

    def __init__(self, module: Module) -> None:
        """Read the definitions of a module's named types."""
        lines = (item for item in module.items if isinstance(item, str))
        self._bodies = {match["name"]: match["body"] for line in lines if (match := _DEFINITION.match(line))}

    def offset(self, text: str, indices: Sequence[int]) -> int | None:
        """Return how many bytes a getelementptr of this type with these indices adds; None if the type is unknown."""
        size = self._layout(text)
        if size is None or not indices:
            return None
        total = indices[0] * size[0]
        for index in indices[1:]:
            text = self._bodies.get(text, text)
            fields = _fields(text)
            if fields is not None:
                if not 0 <= index < len(fields):
                    return None
                walked = self._walk(fields[: index + 1], packed=text.startswith("<"))
                if walked is None:
                    return None
                total += walked[0]
                text = fields[index]
            elif match := _SEQUENCE.fullmatch(text):
                text = match["element"]
                element = self._layout(text)
                if element is None:
                    return None
                total += index * element[0]
            else:
                return None
        return total

    def _layout(self, text: str) -> tuple[int, int] | None:
        """Return (size, alignment) in bytes."""
        text = self._bodies.get(text, text)
        if text == "ptr" or text in _FLOATS:
            size = _FLOATS.get(text, _POINTER_BYTES)
            return size, size
        if match := _INTEGER.fullmatch(text):
            stored = -(-int(match["bits"]) // 8)
            align = min(1 << (stored - 1).bit_length(), _MAX_ALIGN)
            return _aligned(stored, align), align
        fields = _fields(text)
        if fields is not None:
            return self._structure(fields, packed=text.startswith("<"))
        if match := _SEQUENCE.fullmatch(text):
            element = self._layout(match["element"])
            if element is None:
                return None
            size = element[0] * int(match["count"])
            return size, element[1] if text.startswith("[") else 1 << max(size - 1, 0).bit_length()
        return None

    def _structure(self, fields: Sequence[str], *, packed: bool) -> tuple[int, int] | None:
        walked = self._walk(fields, packed=packed)
        if walked is None:
            return None
        _start, end, widest = walked
        return _aligned(end, widest), widest

    def _walk(self, fields: Sequence[str], *, packed: bool) -> tuple[int, int, int] | None:
        """Lay fields out; return where the last begins, where it ends, and the widest alignment."""
        start = end = 0
        widest = 1
        for field in fields:
            layout = self._layout(field)
            if layout is None:
                return None
            align = 1 if packed else layout[1]
            start = _aligned(end, align)
            end = start + layout[0]
            widest = max(widest, align)
        return start, end, widest


def _fields(text: str) -> list[str] | None:
    """Return the types of a structure's fields, or None if it is none."""
    inner = text[1:-1].strip() if text.startswith("<{") and text.endswith("}>") else text
    return split_arguments(inner[1:-1]) if inner.startswith("{") and inner.endswith("}") else None


def _aligned(value: int, align: int) -> int:
    return (value + align - 1) // align * align
