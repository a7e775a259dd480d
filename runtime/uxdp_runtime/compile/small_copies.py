"""Let copies of a few bytes be loads and stores.

LLVM keeps the memory of a copy whose size is no power of two, such as a MAC address's six bytes, and so a swap of two
addresses goes through the stack. As two loads and two stores it stays in registers. All loads come before the stores:
source and destination may be the same place.
"""

import re
from typing import Final

from .ir_text import Module, split_arguments

_COPY: Final = re.compile(r"^  (?:tail )?call void @llvm\.mem(?:cpy|move)\.[\w.]+\((?P<arguments>.*)\)[^()]*$")
_MAX_BYTES: Final = 32
_PIECES: Final = (8, 4, 2, 1)


def expand_small_copies(module: Module) -> None:
    """Replace every copy of a constant number of bytes up to 32 that LLVM would not."""
    number = 0
    for function in module.functions:
        lines: list[str] = []
        for line in function.lines:
            match = _COPY.match(line) if "@llvm.mem" in line else None
            pieces = _pieces(match["arguments"]) if match is not None else None
            if pieces is None:
                lines.append(line)
                continue
            target, source, sizes = pieces
            loads: list[str] = []
            stores: list[str] = []
            offset = 0
            for size in sizes:
                base = f"uxdp.copy.{number}.{offset}"
                kind = f"i{8 * size}"
                loads += [
                    f'  %"{base}.from" = getelementptr i8, {source}, i64 {offset}',
                    f'  %"{base}" = load {kind}, ptr %"{base}.from", align 1',
                ]
                stores += [
                    f'  %"{base}.to" = getelementptr i8, {target}, i64 {offset}',
                    f'  store {kind} %"{base}", ptr %"{base}.to", align 1',
                ]
                offset += size
            lines += [*loads, *stores]
            number += 1
        function.lines = lines


def _pieces(text: str) -> tuple[str, str, list[int]] | None:
    """Return target, source and the sizes of the pieces of a copy that is worth it."""
    arguments = split_arguments(text)
    if len(arguments) != 4 or arguments[3].split()[-1] != "false":
        return None
    size = arguments[2].rsplit(" ", 1)[-1]
    if not size.isdecimal() or not 0 < int(size) <= _MAX_BYTES or int(size) & (int(size) - 1) == 0:
        return None
    operands = [argument.rsplit(" ", 1)[-1] for argument in arguments[:2]]
    if not all(re.fullmatch(r'[%@](?:"[^"]*"|[-\w$.]+)', operand) for operand in operands):
        return None
    left, sizes = int(size), []
    for piece in _PIECES:
        while left >= piece:
            sizes.append(piece)
            left -= piece
    return f"ptr {operands[0]}", f"ptr {operands[1]}", sizes
