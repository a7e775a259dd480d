"""Where the parts of LLVM's textual IR begin and end: brackets, lists, types and their sizes.

Only text that LLVM printed is read: canonical spacing, and quotes inside of strings escaped as \\22.
"""

import re
from collections.abc import Mapping
from typing import Final

NAME: Final = r'(?:"[^"]*"|[-\w$.]+)'  # of a value, a function, a type, without its sigil
_WORD: Final = re.compile(rf"%{NAME}|\w+")
_ADDRESS_SPACE: Final = re.compile(r" addrspace\(\d+\)")
_INTEGER: Final = re.compile(r"i(\d+)")
_ARRAY: Final = re.compile(r"\[(\d+) x (.*)\]")
_VECTOR: Final = re.compile(r"<(\d+) x (.*)>")
_PARAMETERS: Final = re.compile(rf"^define .*?@{NAME}\(")
_FLOATS: Final = {"half": 2, "bfloat": 2, "float": 4, "double": 8, "fp128": 16}
_MAX_DEPTH: Final = 64
_OPENING, _CLOSING = "([{<", ")]}>"


def split_arguments(text: str) -> list[str]:
    """Split a comma-separated list at its top level: commas inside of brackets and strings do not count."""
    if not any(bracket in text for bracket in '"([{<'):
        return [piece.strip() for piece in text.split(",")] if text.strip() else []
    pieces: list[str] = []
    depth = start = 0
    quoted = False
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            pieces.append(text[start:position].strip())
            start = position + 1
    last = text[start:].strip()
    return [*pieces, last] if last else pieces


def closing(text: str, start: int) -> int:
    """Return the position of the bracket that closes the one at ``start``.

    :raises ValueError: none does
    """
    opened = text[start]
    closed = _CLOSING[_OPENING.index(opened)]
    depth = 0
    quoted = False
    for position in range(start, len(text)):
        character = text[position]
        if character == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif character == opened:
            depth += 1
        elif character == closed:
            depth -= 1
            if depth == 0:
                return position
    raise ValueError(f"no bracket closes {text[start : start + 40]!r}")


def end_of_type(text: str, start: int) -> int:
    """Return where the type that begins at ``start`` ends.

    :raises ValueError: no type begins there
    """
    if text[start : start + 1] in ("{", "[", "<"):
        end = closing(text, start) + 1
    else:
        match = _WORD.match(text, start)
        if match is None:
            raise ValueError(f"no type: {text[start : start + 40]!r}")
        end = match.end()
    space = _ADDRESS_SPACE.match(text, end)
    return space.end() if space is not None else end


def first_block(header: str) -> str:
    """Return the name of a function's first block if no label is printed for it: the number behind its parameters'.

    :param header: the line that begins the function
    """
    match = _PARAMETERS.match(header)
    start = match.end() - 1 if match is not None else header.index("(")
    pieces = split_arguments(header[start + 1 : closing(header, start)])
    return f"%{sum('%' not in piece or piece.rpartition('%')[2].isdecimal() for piece in pieces)}"


def type_bytes(kind: str, types: Mapping[str, str], depth: int = 0) -> tuple[int, int]:
    """Return size and alignment of a type in BPF's data layout, both in bytes.

    :param types: the bodies of the module's named types
    :raises ValueError: a type that has no size, or is too deep
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"types nested more than {_MAX_DEPTH} deep")
    if kind.startswith("ptr"):
        return 8, 8
    if match := _INTEGER.fullmatch(kind):
        size = (int(match[1]) + 7) // 8
        align = min(1 << max(size - 1, 0).bit_length(), 16)
        return -(-size // align) * align, align
    if kind in types:
        return type_bytes(types[kind], types, depth + 1)
    if match := _ARRAY.fullmatch(kind):
        size, align = type_bytes(match[2], types, depth + 1)
        return int(match[1]) * size, align
    if match := _VECTOR.fullmatch(kind):
        size = int(match[1]) * type_bytes(match[2], types, depth + 1)[0]
        return size, 1 << max(size - 1, 0).bit_length()
    if kind.startswith(("{", "<{")):
        packed = kind.startswith("<")
        return _structure_bytes(kind[2:-2] if packed else kind[1:-1], packed, types, depth)
    if kind in _FLOATS:
        return _FLOATS[kind], _FLOATS[kind]
    raise ValueError(f"type {kind[:60]!r} has no size")


def _structure_bytes(members: str, packed: bool, types: Mapping[str, str], depth: int) -> tuple[int, int]:
    total, widest = 0, 1
    for member in split_arguments(members):
        size, align = type_bytes(member, types, depth + 1)
        if not packed:
            total = -(-total // align) * align
            widest = max(widest, align)
        total += size
    return -(-total // widest) * widest, widest
