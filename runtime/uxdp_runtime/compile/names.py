"""Give what a bundle defines names of its own, so that nothing of it can pass for anything else.

To LLVM names have meanings: a function called ``strlen`` computes the length of a string, whatever its body says. And
the native library has names, of which none may be taken, or reached, by a bundle that declares the same.
"""

import re
from collections.abc import Set as AbstractSet
from typing import Final

from uxdp_bundle.ir_syntax import NAME

from .ir_text import Function, Module

OWN: Final = "uxdp.own."
_STRING_OR_NAME: Final = re.compile(rf'@(?P<name>{NAME})|"[^"]*"')


def separate_names(module: Module, own: AbstractSet[str]) -> None:
    """Put OWN before the names of a bundle's functions and variables, wherever they stand.

    :param own: what the bundle defines and declares, without LLVM's own names
    """

    def separated(match: re.Match[str]) -> str:
        name = (match["name"] or "").strip('"')
        return f'@"{OWN}{name}"' if name in own else match[0]

    def of_line(line: str) -> str:
        return _STRING_OR_NAME.sub(separated, line) if "@" in line else line

    items: list[str | Function] = []
    for item in module.items:
        if isinstance(item, str):
            items.append("\n".join(map(of_line, item.split("\n"))))
            continue
        item.name = item.name if item.name.strip('"') not in own else f'"{OWN}{item.name.strip(chr(34))}"'
        item.header = of_line(item.header)
        item.lines = [of_line(line) for line in item.lines]
        items.append(item)
    module.items = items
