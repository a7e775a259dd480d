"""What a compilation read, and what it writes for make.

clang reports the files it read through CC_PRINT_HEADERS, beside whatever -MD, -MF or -MT the user asks for. Names in
the manifest and in debug information come from one mapping, in which the places of the building machine do not occur.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uxdp_bundle.errors import FileAccessError
from uxdp_bundle.manifest import SourceFile

from .argv import paired, stem
from .toolchain import Toolchain

STDIN: Final = "-"
STDIN_NAME: Final = "<stdin>"
# What stands for a clang's own folder. Absolute, as the system's folders are: not one of the project's.
RESOURCES: Final = "/clang"
# Folders that are at the same place on every machine, and belong to no project.
_SYSTEM: Final = "/usr/"
_SEARCH_OPTIONS: Final = ("-isystem", "-iquote", "-idirafter", "-I", "--include-directory=")
_SEPARATE_SEARCH: Final = frozenset(("-I", "-isystem", "-iquote", "-idirafter", "--include-directory"))
_SEPARATE_FILE: Final = frozenset(("-include", "-imacros", "--include", "--imacros"))
_WRITES_RULE: Final = frozenset(("-MD", "-MMD", "--write-dependencies", "--write-user-dependencies"))


@dataclass(frozen=True, slots=True)
class PathMap:
    """Prefixes of absolute paths, and what stands for them in everything that leaves the machine.

    They are ordered from the shortest to the longest: older clangs take the longest that fits, newer ones the last.
    """

    prefixes: tuple[tuple[str, str], ...]

    def flags(self) -> list[str]:
        """Return clang's options for debug information and __FILE__."""
        return [f"-ffile-prefix-map={old}={new}" for old, new in self.prefixes]

    def name(self, path: str) -> str | None:
        """Return a file's name for the manifest: relative to the project, None for a file that is not part of it.

        Above the working directory ``..`` is written ``__``, as a manifest's paths stay below their root.
        """
        for old, new in reversed(self.prefixes):
            if path == old or path.startswith(f"{old.rstrip('/')}/"):
                path = new + path[len(old) :]
                break
        path = os.path.normpath(path)
        if path.startswith("/"):
            return None
        return "/".join("__" if part == ".." else part for part in path.split("/"))


def path_map(toolchain: Toolchain, sources: Sequence[str], clang_args: Sequence[str], cwd: Path) -> PathMap:
    """Return the mapping for one command line.

    The working directory and the folder of sources elsewhere become nothing, so that a source has the same name
    however it is called; a search path elsewhere becomes its last component.
    """
    here = str(cwd)
    prefixes = {"./": ""}  # clang finds "own.h" beside nf.c as ./own.h, and beside /project/nf.c as /project/own.h
    known = (_SYSTEM, f"{here}/", *([f"{toolchain.resource_dir}/"] if toolchain.resource_dir else []))
    for folder in _search_folders(clang_args):
        if not f"{folder}/".startswith(known) and folder.strip("/"):
            prefixes[folder] = os.path.normpath(folder).rpartition("/")[2]
    folders = [source.rpartition("/")[0] for source in sources if source.startswith("/")]
    elsewhere = [folder for folder in folders if not f"{folder}/".startswith(f"{here}/")]
    common = os.path.commonpath(elsewhere) if elsewhere else "/"
    for folder in (*(elsewhere if common == "/" else [common]), here):
        if folder.strip("/"):
            prefixes[folder] = "."
            prefixes[f"{folder}/"] = ""
    if toolchain.resource_dir:
        prefixes[toolchain.resource_dir] = RESOURCES
    return PathMap(tuple(sorted(prefixes.items(), key=lambda item: (len(item[0]), item[0]))))


def parse_headers(text: str) -> list[str]:
    """Return the files in a list that clang wrote for CC_PRINT_HEADERS, each once."""
    return list(dict.fromkeys(line for line in text.split("\n") if line))


def project_files(names: Iterable[str], mapping: PathMap, cwd: Path, stdin: bytes = b"") -> dict[str, bytes]:
    """Return the content of those files that belong to the project, by their name in the manifest.

    :param names: as clang was given them or reported them; missing ones are left out
    :raises FileAccessError: one cannot be read
    """
    found: dict[str, bytes] = {}
    for given in names:
        if given == STDIN:
            found[STDIN_NAME] = stdin
            continue
        name, path = mapping.name(given), cwd / given
        if name is None or name in found or not path.is_file():
            continue
        try:
            found[name] = path.read_bytes()
        except OSError as cause:
            raise FileAccessError(str(cause.strerror), errno=cause.errno or 0, context=str(path)) from cause
    return found


def digests(files: Mapping[str, bytes]) -> tuple[SourceFile, ...]:
    """Return the manifest's records of the files, sorted by name."""
    return tuple(SourceFile(name, hashlib.sha256(files[name]).hexdigest()) for name in sorted(files))


def rule_names(clang_args: Sequence[str], output: str, source: str, *, named: bool) -> tuple[str, ...]:
    """Return what -MD needs to name file and target as clang would by its output, for it sees a temporary one.

    :param named: whether -o names the output; else clang names the file after the source, in the working directory
    """
    if not any(word in _WRITES_RULE or word.startswith(("-Wp,-MD", "-Wp,-MMD")) for word in clang_args):
        return ()
    names: list[str] = []
    if not any(word.startswith(("-MF", "-Wp,-MD,", "-Wp,-MMD,")) for word in clang_args):
        folder, slash, _ = output.rpartition("/")
        names += ["-MF", f"{folder}{slash}{stem(output)}.d" if named else f"{stem(source)}.d"]
    if not any(word.startswith(("-MT", "-MQ")) for word in clang_args):
        names += ["-MQ", output]
    return tuple(names)


def asks_for_own_headers(clang_args: Sequence[str]) -> bool:
    """Whether a rule is to be written that leaves the system's headers out."""
    return any(word in ("-MMD", "--write-user-dependencies") or word.startswith("-Wp,-MMD") for word in clang_args)


def without_rules(clang_args: Sequence[str]) -> list[str]:
    """Return the arguments without those that write rules for make, for a second run on the same source."""
    kept: list[str] = []
    words = iter(clang_args)
    for word in words:
        if word in ("-MF", "-MT", "-MQ"):
            next(words, None)
        elif word not in _WRITES_RULE and not word.startswith(("-MF", "-MT", "-MQ", "-MP", "-MG", "-Wp,-M")):
            kept.append(word)
    return kept


def _search_folders(clang_args: Sequence[str]) -> list[str]:
    """Return the absolute folders in which the arguments have clang look for headers."""
    folders = []
    for option, value in paired(clang_args):
        if value is not None and option in _SEPARATE_SEARCH:
            folders.append(value)
        elif value is not None and option in _SEPARATE_FILE:
            folders.append(value.rpartition("/")[0])
        else:
            joined = next((prefix for prefix in _SEARCH_OPTIONS if option.startswith(prefix)), None)
            folders += [option[len(joined) :]] if joined else []
    return [folder.rstrip("/") for folder in folders if folder.startswith("/")]
