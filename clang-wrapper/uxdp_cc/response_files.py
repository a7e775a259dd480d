"""Replace @file on a command line by the arguments in that file, as clang's driver does.

Source: LLVM, lib/Support/CommandLine.cpp, TokenizeGNUCommandLine and ExpansionContext::expandResponseFiles
"""

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import UsageError

_MAX_DEPTH = 16
_SPACE = frozenset(" \t\r\n\0")
_BYTE_ORDER_MARK = "\ufeff"


def expand(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with every @file replaced; one that names no file stays an argument, for clang to refuse.

    :raises UsageError: a file cannot be read, or names itself
    """
    return _expand(arguments, ())


def tokenize(text: str) -> list[str]:
    """Split the text of a response file.

    A backslash takes the next character as it is, inside of quotes too; quotes of both kinds group; a newline is a
    space; an open quote ends with the file; an empty pair of quotes is nothing.
    """
    tokens: list[str] = []
    token = ""
    quote = ""
    characters = iter(text.removeprefix(_BYTE_ORDER_MARK))
    for character in characters:
        if character == "\\":
            token += next(characters, "\\")
        elif quote:
            if character == quote:
                quote = ""
            else:
                token += character
        elif character in "\"'":
            quote = character
        elif character in _SPACE:
            tokens += [token] if token else []
            token = ""
        else:
            token += character
    return [*tokens, token] if token else tokens


def _expand(arguments: Sequence[str], outer: tuple[Path, ...]) -> list[str]:
    expanded: list[str] = []
    for argument in arguments:
        path = Path(argument[1:]) if argument.startswith("@") and len(argument) > 1 else None
        if path is None or not path.is_file():
            expanded.append(argument)
            continue
        if path in outer or len(outer) >= _MAX_DEPTH:
            raise UsageError("a response file that expands to itself", context=argument)
        try:
            text = os.fsdecode(path.read_bytes())
        except OSError as cause:
            raise UsageError(f"cannot be read as a response file: {cause.strerror}", context=argument) from cause
        expanded += _expand(tokenize(text), (*outer, path))
    return expanded
