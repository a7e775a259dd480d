"""The build hook's table in pyproject.toml: what may stand in it, and which files it means.

    [tool.hatch.build.targets.wheel.hooks.uxdp]
    sources = ["*.c"]                  # each .c file becomes one bundle, STEM.uxdp
    include-dirs = ["include"]
    defines = ["MAX_FLOWS=4096"]       # or a table: { MAX_FLOWS = 4096 }
    cflags = ["-O2", "-Wall"]
    sign = "auto"                      # or "require", "off"
    key-env = "UXDP_SIGNING_KEY"       # which environment variable holds the key, or the path of its file

uxdp.schema.json says the same to validate-pyproject. Everything that is wrong is one HookConfigError whose context is
the full key, such as ``tool.hatch.build.targets.wheel.hooks.uxdp.sources[0]``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from hatchling.builders.constants import EXCLUDED_DIRECTORIES

from uxdp_bundle.errors import UxdpError
from uxdp_bundle.manifest import NAME_PATTERN
from uxdp_cc.argv import parse_argv
from uxdp_cc.errors import UsageError

DEFAULT_KEY_VARIABLE: Final = "UXDP_SIGNING_KEY"
SIGN_MODES: Final = ("auto", "require", "off")
KEYS: Final = ("sources", "include-dirs", "defines", "cflags", "sign", "key-env")
# Hatchling reads these itself from every hook's table, and checks the types of all but the first.
RESERVED_KEYS: Final = (
    "enable-by-default",
    "dependencies",
    "require-runtime-dependencies",
    "require-runtime-features",
)

# What TOML calls the types that tomllib returns.
_TYPE_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "a table",
}
_MACRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The hook compiles to a bundle of its own choice of name, and compiles nothing else; a build that reads flags from
# files or writes files beside the bundle is not the same build from a source distribution.
_ANY_SOURCE = "nf.c"
_REFUSED_FLAG = re.compile(r"-c|-E|-S|-o.*|-emit-llvm|-M.*|@.*|--uxdp-.*|--save-temps.*|-save-temps.*|-fsyntax-only")


class HookConfigError(UxdpError):
    """The hook's table is wrong; ``context`` is the full key."""


@dataclass(frozen=True, slots=True)
class HookConfig:
    """The hook's table, checked; ``location`` is its full name, for messages about what it means."""

    location: str
    sources: tuple[str, ...]
    include_dirs: tuple[str, ...]
    defines: tuple[str, ...]
    cflags: tuple[str, ...]
    sign: str
    key_variable: str

    def clang_args(self) -> tuple[str, ...]:
        """Return the flags for clang; ``cflags`` come last, so they override."""
        includes = (f"-I{directory}" for directory in self.include_dirs)
        return (*includes, *(f"-D{define}" for define in self.defines), *self.cflags)


def parse_config(table: Mapping[str, Any], location: str) -> HookConfig:
    """Check the hook's table.

    :param table: as hatchling hands it over
    :param location: the table's full name, ``tool.hatch.build.targets.wheel.hooks.uxdp``
    :raises HookConfigError: the first thing that is wrong
    """
    for key in table:
        if key not in KEYS and key not in RESERVED_KEYS:
            raise HookConfigError(
                f"unknown key, expected one of {', '.join(KEYS)}", context=f"{location}.{key}", remedy="remove it"
            )
    if "sources" not in table:
        raise HookConfigError(
            "missing, expected the C files to compile", context=f"{location}.sources", remedy='say sources = ["*.c"]'
        )
    enable = table.get("enable-by-default", True)
    if type(enable) is not bool:
        raise _wrong_type(enable, "true or false", f"{location}.enable-by-default")
    sources = _texts(table, "sources", location)
    if not sources:
        raise HookConfigError("empty, expected at least one path or glob", context=f"{location}.sources")
    config = HookConfig(
        location=location,
        sources=tuple(_relative(path, f"{location}.sources[{i}]") for i, path in enumerate(sources)),
        include_dirs=tuple(
            _relative(path, f"{location}.include-dirs[{i}]")
            for i, path in enumerate(_texts(table, "include-dirs", location))
        ),
        defines=_defines(table.get("defines", []), f"{location}.defines"),
        cflags=tuple(
            _flag(flag, f"{location}.cflags[{i}]") for i, flag in enumerate(_texts(table, "cflags", location))
        ),
        sign=_sign(table.get("sign", "auto"), f"{location}.sign"),
        key_variable=_variable(table.get("key-env", DEFAULT_KEY_VARIABLE), f"{location}.key-env"),
    )
    _check_command(config)
    return config


def find_sources(config: HookConfig, root: Path) -> tuple[PurePosixPath, ...]:
    """Return the C files that ``config.sources`` means, relative to ``root``, sorted by bundle name.

    :raises HookConfigError: an entry matches no file or a file that is no C source, or two files give one bundle name
    """
    found: dict[str, tuple[PurePosixPath, str]] = {}
    for i, pattern in enumerate(config.sources):
        where = f"{config.location}.sources[{i}]"
        matches = _matches(root, pattern, where)
        if not matches:
            raise HookConfigError(
                f"{pattern!r} matches no file in {root}",
                context=where,
                remedy="paths are relative to pyproject.toml; a source distribution must contain them too",
            )
        for path in matches:
            _check_source(root, path, where)
            other, other_where = found.setdefault(path.stem, (path, where))
            if other != path:
                raise HookConfigError(
                    f"{str(path)!r} and {str(other)!r} ({other_where}) would both be the bundle {path.stem!r}",
                    context=where,
                    remedy="rename one of them: a network function's name is its source's stem",
                )
    return tuple(path for path, _ in sorted(found.values(), key=lambda item: item[0].stem))


def check_include_dirs(config: HookConfig, root: Path) -> None:
    """Require that every include directory is one, inside the project.

    :raises HookConfigError: it is missing, no directory, or a link that leads out of the project
    """
    for i, directory in enumerate(config.include_dirs):
        where = f"{config.location}.include-dirs[{i}]"
        if not (root / directory).is_dir():
            raise HookConfigError(f"{directory!r} is no directory in {root}", context=where)
        _check_inside(root, root / directory, where)


def _matches(root: Path, pattern: str, where: str) -> list[PurePosixPath]:
    if not any(character in pattern for character in "*?["):
        return [PurePosixPath(pattern)] if (root / pattern).is_file() else []
    try:
        paths = [PurePosixPath(path.relative_to(root)) for path in root.glob(pattern) if path.is_file()]
    except (NotImplementedError, ValueError) as cause:  # "**" as a part of a component
        raise HookConfigError(f"{pattern!r} is no glob: {cause}", context=where) from cause
    return sorted(path for path in paths if not any(_is_hidden(part) for part in path.parts[:-1]))


def _is_hidden(directory: str) -> bool:
    # A glob like **/*.c must not reach into virtual environments and caches.
    return directory.startswith(".") or directory in EXCLUDED_DIRECTORIES


def _check_source(root: Path, path: PurePosixPath, where: str) -> None:
    if path.suffix != ".c":
        raise HookConfigError(
            f"{str(path)!r} is no .c file", context=where, remedy="name C sources only; headers go to include-dirs"
        )
    if str(path).startswith("-") and len(path.parts) > 1:
        raise HookConfigError(
            f"{str(path)!r} begins with '-', like a flag of clang", context=where, remedy="rename the folder"
        )
    if not NAME_PATTERN.fullmatch(path.stem):
        raise HookConfigError(
            f"{path.stem!r} cannot be the name of a bundle, which must match {NAME_PATTERN.pattern}", context=where
        )
    _check_inside(root, root / path, where)


def _check_inside(root: Path, path: Path, where: str) -> None:
    if not path.resolve().is_relative_to(root.resolve()):
        raise HookConfigError(
            f"{str(path)!r} is a link out of the project, to {str(path.resolve())!r}",
            context=where,
            remedy="copy it into the project: a source distribution has only what lies in it",
        )


def _texts(table: Mapping[str, Any], key: str, location: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise _wrong_type(value, "an array of strings", f"{location}.{key}")
    return tuple(_text(item, f"{location}.{key}[{i}]") for i, item in enumerate(value))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a string", where)
    if not value or not value.isprintable():
        raise HookConfigError(f"{value!r}, expected a non-empty string of printable characters", context=where)
    return value


def _relative(value: str, where: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or path.parts[:1] == ("~",):
        raise HookConfigError(
            f"{value!r}, expected a path inside the project",
            context=where,
            remedy="copy the file into the project, or name a system directory in cflags: -isystem DIR",
        )
    return str(path)


def _defines(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(_define(_text(item, f"{where}[{i}]"), f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, dict):
        return tuple(_define(f"{name}={_define_value(item, f'{where}.{name}')}", where) for name, item in value.items())
    raise _wrong_type(value, "an array of NAME=VALUE or a table", where)


def _define_value(value: Any, where: str) -> str:
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise _wrong_type(value, "a string or an integer", where)
    if value and not value.isprintable():
        raise HookConfigError(f"{value!r}, expected printable characters", context=where)
    return value


def _define(value: str, where: str) -> str:
    name = value.partition("=")[0]
    if not _MACRO.fullmatch(name):
        raise HookConfigError(f"{name!r} is no macro's name, expected NAME or NAME=VALUE", context=where)
    return value


def _flag(value: str, where: str) -> str:
    if _REFUSED_FLAG.fullmatch(value):
        raise HookConfigError(
            f"{value!r} changes what is written and where, which the hook decides", context=where, remedy="remove it"
        )
    return value


def _check_command(config: HookConfig) -> None:
    """Let uxdp-cc read the command line that it would be: it knows which flags take a value, which targets exist."""
    where = f"{config.location}.cflags"
    try:
        invocation = parse_argv(["-c", *config.clang_args(), _ANY_SOURCE])
    except UsageError as cause:
        raise HookConfigError(str(cause), context=where, remedy=cause.remedy) from cause
    if invocation.sources != (_ANY_SOURCE,):
        words = [source for source in invocation.sources if source != _ANY_SOURCE] or list(config.cflags[-1:])
        raise HookConfigError(
            f"{words[0]!r} is no flag, or lacks its value",
            context=where,
            remedy="name C files in sources, and a flag's value as a string of its own",
        )
    if invocation.action != "compile":
        raise HookConfigError(
            f"{list(config.cflags)} have clang do something else than compile",
            context=where,
            remedy="leave that flag out",
        )


def _sign(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a string", where)
    if value not in SIGN_MODES:
        raise HookConfigError(f"{value!r}, expected one of {_quoted(SIGN_MODES)}", context=where)
    return value


def _variable(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a string", where)
    if not _VARIABLE.fullmatch(value):
        # Perhaps somebody put the key itself here: never repeat it.
        raise HookConfigError(
            "not the name of an environment variable",
            context=where,
            remedy="name the variable that holds the key or the path of its file; the key itself never stands here",
        )
    return value


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _wrong_type(value: Any, wanted: str, where: str) -> HookConfigError:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "a table",
    }
    return HookConfigError(f"{names.get(type(value), type(value).__name__)}, expected {wanted}", context=where)
