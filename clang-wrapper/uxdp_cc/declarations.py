"""Find the source line of a declaration of which the object and the IR keep none: clang's syntax tree knows it."""

import os
import re
from collections.abc import Iterable
from typing import Final

_INDENT: Final = b" " * 6  # of the members of a declaration at file scope
_KIND: Final = _INDENT + b'"kind": "'
_NAME: Final = _INDENT + b'"name": "'
_LOCATION: Final = _INDENT + b'"loc": {'
_LOCATION_END: Final = _INDENT + b"}"
_VALUE = re.compile(rb'": "?((?:[^"\\]|\\.)*?)"?,?\n?$')


def find_declaration(tree: Iterable[bytes], kind: str, name: str | None = None) -> tuple[str, int] | None:
    """Return (file, line) of the first declaration at file scope of that kind, and of that name if one is given.

    :param tree: the lines that clang -ast-dump=json prints. They are read as a stream, because the tree of one kernel
        header has two hundred megabytes, and because file and line stand only where they differ from those before.
    """
    wanted_kind, wanted_name = kind.encode(), None if name is None else name.encode()
    file, line, found_kind = b"", 0, b""
    place: tuple[str, int] | None = None
    in_location = in_included_from = False
    for text in tree:
        key = text.lstrip()
        if in_included_from:
            in_included_from = not key.startswith(b"}")
        elif key.startswith(b'"line"'):
            line = int(_value(text))
        elif key.startswith(b'"file"'):
            file = _value(text)
        elif key.startswith(b'"includedFrom"'):
            in_included_from = True
        elif text.startswith(_KIND):
            found_kind, place = _value(text), None
        elif text.startswith(_LOCATION):
            in_location = True
        elif in_location and text.startswith(_LOCATION_END):
            # Of a macro's two places, where it is written and where it is used, the latter stands last.
            in_location, place = False, (os.fsdecode(file), line)
            if found_kind == wanted_kind and wanted_name is None:
                return place
        elif text.startswith(_NAME) and found_kind == wanted_kind and _value(text) == wanted_name:
            return place
    return None


def _value(text: bytes) -> bytes:
    found = _VALUE.search(text)
    return found[1] if found is not None else b""
