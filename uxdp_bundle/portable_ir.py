"""Make textual IR independent of the machine it was built on, and keep of the source only what its object shows.

The BPF backend copies the source lines of instructions into BTF, where the verifier's log quotes them: from the text
that a module embeds (-gembed-source), else from the disk, which nobody who binds has. The whole text would end in the
IR, and in the object's .debug_line_str as well: a vmlinux.h of three megabytes, and sources that their author did not
mean to publish. So of each of the project's files the lines that have code stay, at their numbers, and nothing of other
files. Names of files are spelled in one way, however the compiler was called.

Quotes inside of strings are written \\22 in textual IR, so no string holds one.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

_FILE = re.compile(
    r'^(?P<id>!\d+) = !DIFile\(filename: "(?P<name>[^"]*)", directory: "(?P<directory>[^"]*)"'
    r'(?P<checksum>(?:, checksum[a-z]*: [^,)]*)*)(?:, source: "(?P<source>[^"]*)")?\)$',
    re.MULTILINE,
)
_SCOPE = re.compile(r"^(!\d+) = (?:distinct )?!DI(?:Subprogram|LexicalBlock|LexicalBlockFile)\((.*)\)$", re.MULTILINE)
_LOCATION = re.compile(r"!DILocation\(line: (\d+)(?:, column: \d+)?, scope: (!\d+)")
_OF_FILE = re.compile(r"(?:^|, )file: (!\d+)")
_AT_LINE = re.compile(r"(?:^|, )line: (\d+)")
_SOURCE_FILENAME = re.compile(r'^source_filename = "([^"]*)"$', re.MULTILINE)
_NEWLINE = "\\0A"


def portable(text: str) -> str:
    """Return textual IR without what depends on the building machine."""
    lines = _lines_with_code(text)

    def respell(match: re.Match[str]) -> str:
        name, directory = _spelled(match["name"], match["directory"])
        fields = f'filename: "{name}", directory: "{directory}"{match["checksum"]}'
        kept = lines.get(name, set()) if match["source"] and not name.startswith("/") else set()
        if kept:
            source = match["source"].split(_NEWLINE)
            shown = (line if number in kept else "" for number, line in enumerate(source[: max(kept)], 1))
            fields += f', source: "{_NEWLINE.join(shown)}"'
        return f"{match['id']} = !DIFile({fields})"

    text = _FILE.sub(respell, text)
    return _SOURCE_FILENAME.sub(lambda match: f'source_filename = "{match[1].rpartition("/")[2]}"', text)


def _lines_with_code(text: str) -> Mapping[str, set[int]]:
    """Return the lines, by file, of instructions and of the beginnings of functions."""
    names = {match["id"]: _spelled(match["name"], match["directory"])[0] for match in _FILE.finditer(text)}
    lines: defaultdict[str, set[int]] = defaultdict(set)
    scopes = {}
    for identifier, fields in _SCOPE.findall(text):
        file, line = _OF_FILE.search(fields), _AT_LINE.search(fields)
        if file is not None and file[1] in names:
            scopes[identifier] = names[file[1]]
            if line is not None:
                lines[names[file[1]]].add(int(line[1]))
    for number, scope in _LOCATION.findall(text):
        if scope in scopes:
            lines[scopes[scope]].add(int(number))
    for numbers in lines.values():
        numbers.discard(0)  # the compiler's own instructions
    return lines


def _spelled(name: str, directory: str) -> tuple[str, str]:
    """Return a file's name and directory; clang says the same in other ways for an absolute path that it maps."""
    while name.startswith("./"):
        name = name[2:]
    return (name, directory) if name.startswith("/") else (name, directory or ".")
