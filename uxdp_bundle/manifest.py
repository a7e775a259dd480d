"""The manifest: what a bundle says of itself. FORMAT.md, "Manifest", is the specification; this follows it.

Parsing is pure: bytes in, a frozen Manifest out. Nothing here is believed because it is signed: what can be derived
from the object (programs, maps, xdp_md, params, requirements.kernel) is derived again by ``bind``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from . import canonical
from .canonical import JsonObject
from .errors import BundleFormatError

SCHEMA: Final = 1
MAX_MANIFEST_BYTES: Final = 256 << 10
MAX_MEMBERS: Final = 64
MAX_PROGRAMS: Final = 256
MAX_MAPS: Final = 256
MAX_PARAMS: Final = 1024
MAX_TEXT: Final = 1024

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
# A path that stays below the folder it is resolved in, whatever the reader does with it.
_PATH = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[^/\0\\][^\0\\]{0,254}")

ROLES: Final = ("object", "ir", "shim", "source", "sbom", "vectors", "native")
COMPRESSIONS: Final = ("none", "zstd")
# Top-level keys that this version understands; any other named in critical[] makes the bundle unreadable for it.
UNDERSTOOD: Final = frozenset(
    (
        *("build", "critical", "license", "map_extra", "maps", "members", "name", "params", "programs"),
        *("requirements", "schema", "security_version", "version", "xdp_md"),
    )
)


@dataclass(frozen=True, slots=True)
class Member:
    """One byte range of the file. ``length`` and ``sha256`` are of the stored bytes, ``size`` of the unpacked ones."""

    role: str
    name: str
    offset: int
    length: int
    size: int
    sha256: str
    media_type: str
    compression: str


@dataclass(frozen=True, slots=True)
class Program:
    """One XDP entry point; helpers and kfuncs include those of the subprograms and callbacks it reaches."""

    name: str
    section: str
    flags: tuple[str, ...]
    helpers: tuple[str, ...]
    kfuncs: tuple[str, ...]
    instructions: int


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """One map as libbpf would create it; sizes in bytes. ``inner`` is the template of a map-in-map, ``extra`` what the
    type makes of map_extra."""

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    pinning: bool
    inner: "MapDefinition | None"
    extra: int = 0


@dataclass(frozen=True, slots=True)
class Param:
    """One named constant of .rodata that may be set before the program is loaded.

    ``default`` is an integer for integer types and lower-case hex of ``size`` bytes for all others.
    """

    name: str
    type: str
    size: int
    default: int | str


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the bundle needs: kernel features by name, the LLVM major that lowers its IR, and the -mcpu."""

    kernel: tuple[str, ...]
    llvm: int
    mcpu: str


@dataclass(frozen=True, slots=True)
class Lowering:
    """How the object was made from the IR: the LLVM version and the target machine's parameters."""

    llvm: str
    cpu: str
    features: str
    optimisation: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A source as it was compiled; ``path`` is relative to the build's folder."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Build:
    """Where the object came from. ``lowering`` is None when clang made the object and there is no IR."""

    compiler: str
    flags: tuple[str, ...]
    sources: tuple[SourceFile, ...]
    lowering: Lowering | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself."""

    name: str
    version: str
    security_version: int
    license: str
    critical: tuple[str, ...]
    members: tuple[Member, ...]
    programs: tuple[Program, ...]
    maps: tuple[MapDefinition, ...]
    xdp_md: tuple[str, ...]
    params: tuple[Param, ...]
    requirements: Requirements
    build: Build

    def encode(self) -> bytes:
        """Return the canonical JSON whose SHA-256 is the bundle id."""
        return canonical.dumps(to_json(self))


def extra_of(maps: Iterable[MapDefinition]) -> dict[str, int]:
    """Return ``map_extra`` of the maps that have any, by name."""
    return {item.name: item.extra for item in maps if item.extra}


def to_json(value: Any) -> Any:
    """Return the JSON form of a manifest or of one of its parts: dataclasses as objects, tuples as arrays."""
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        result = {name: to_json(getattr(value, name)) for name in value.__dataclass_fields__}
        if isinstance(value, Manifest):
            result["schema"] = SCHEMA
            extra = extra_of(value.maps)
            if extra:
                result["map_extra"] = extra
        if isinstance(value, MapDefinition):
            del result["extra"]  # a record is closed; it has a key of its own
        return result
    return value


def parse_manifest(data: bytes) -> Manifest:
    """Parse and check a manifest; offsets are checked against the file by the container, not here.

    :raises BundleFormatError: ``context`` is the path of the field, such as ``manifest.maps[2].value_size``
    """
    top = _Fields(canonical.loads_canonical(data, what="manifest", max_bytes=MAX_MANIFEST_BYTES), "manifest")
    schema = top.integer("schema", 1, 1 << 31)
    if schema != SCHEMA:
        raise BundleFormatError(
            f"{schema}, this version reads {SCHEMA}",
            context="manifest.schema",
            remedy="install a newer uxdp",
        )
    critical = top.texts("critical")
    unknown = sorted(set(critical) - UNDERSTOOD)
    if unknown:
        raise BundleFormatError(
            f"{', '.join(unknown)[:200]} must be understood to use this bundle, and this version does not",
            context="manifest.critical",
            remedy="install a newer uxdp",
        )
    requirements = top.record("requirements")
    manifest = Manifest(
        name=top.text("name", NAME_PATTERN),
        version=top.text("version", VERSION_PATTERN),
        security_version=top.integer("security_version", 0, (1 << 31) - 1),
        license=top.text("license"),
        critical=critical,
        members=tuple(_member(item) for item in top.records("members", MAX_MEMBERS)),
        programs=tuple(_program(item) for item in top.records("programs", MAX_PROGRAMS)),
        maps=_with_extra(tuple(_map(item) for item in top.records("maps", MAX_MAPS)), top),
        xdp_md=top.texts("xdp_md"),
        params=tuple(_param(item) for item in top.records("params", MAX_PARAMS)),
        requirements=Requirements(
            kernel=requirements.texts("kernel"),
            llvm=requirements.integer("llvm", 0, 1000),
            mcpu=requirements.text("mcpu"),
        ),
        build=_build(top.record("build")),
    )
    requirements.done()
    return manifest


def _member(fields: "_Fields") -> Member:
    member = Member(
        role=fields.choice("role", ROLES),
        name=fields.text("name", _PATH),
        offset=fields.integer("offset", 0, canonical.MAX_INTEGER),
        length=fields.integer("length", 0, canonical.MAX_INTEGER),
        size=fields.integer("size", 0, canonical.MAX_INTEGER),
        sha256=fields.text("sha256", _SHA256),
        media_type=fields.text("media_type"),
        compression=fields.choice("compression", COMPRESSIONS),
    )
    fields.done()
    return member


def _program(fields: "_Fields") -> Program:
    program = Program(
        name=fields.text("name"),
        section=fields.text("section"),
        flags=fields.texts("flags"),
        helpers=fields.texts("helpers"),
        kfuncs=fields.texts("kfuncs"),
        instructions=fields.integer("instructions", 1, 1 << 31),
    )
    fields.done()
    return program


def _map(fields: "_Fields", depth: int = 0) -> MapDefinition:
    inner = fields.value("inner")
    if inner is not None and depth == 1:
        raise BundleFormatError("a map-in-map nests once", context=fields.at("inner"))
    definition = MapDefinition(
        name=fields.text("name"),
        type=fields.text("type"),
        key_size=fields.integer("key_size", 0, 0xFFFFFFFF),
        value_size=fields.integer("value_size", 0, 0xFFFFFFFF),
        max_entries=fields.integer("max_entries", 0, 0xFFFFFFFF),
        flags=fields.integer("flags", 0, 0xFFFFFFFF),
        pinning=fields.boolean("pinning"),
        inner=None if inner is None else _map(_Fields(inner, fields.at("inner")), depth + 1),
    )
    fields.done()
    return definition


def _with_extra(maps: tuple[MapDefinition, ...], top: "_Fields") -> tuple[MapDefinition, ...]:
    """Return the maps with what the top-level key ``map_extra`` says of them; it is younger than the maps' records."""
    if not top.has("map_extra"):
        return maps
    extra = top.record("map_extra")
    known = {item.name for item in maps}
    found = {name: extra.integer(name, 1, canonical.MAX_INTEGER) for name in extra.names() if name in known}
    extra.done()
    return tuple(replace(item, extra=found.get(item.name, 0)) for item in maps)


def _param(fields: "_Fields") -> Param:
    default = fields.value("default")
    size = fields.integer("size", 1, 1 << 24)
    if isinstance(default, str):
        if len(default) != 2 * size or not _HEX.fullmatch(default):
            raise BundleFormatError(
                f"{default[:40]!r}, expected {2 * size} lower-case hex digits", context=fields.at("default")
            )
    elif type(default) is not int:
        raise BundleFormatError(
            f"a {type(default).__name__}, expected an integer or hex digits", context=fields.at("default")
        )
    param = Param(name=fields.text("name"), type=fields.text("type"), size=size, default=default)
    fields.done()
    return param


def _build(fields: "_Fields") -> Build:
    lowering = None
    if fields.value("lowering") is not None:
        record = fields.record("lowering")
        lowering = Lowering(
            llvm=record.text("llvm"),
            cpu=record.text("cpu"),
            features=record.text("features", re.compile(r"[A-Za-z0-9+,_-]*")),
            optimisation=record.integer("optimisation", 0, 3),
        )
        record.done()
    sources = []
    for item in fields.records("sources", 4096):
        sources.append(SourceFile(path=item.text("path", _PATH), sha256=item.text("sha256", _SHA256)))
        item.done()
    build = Build(
        compiler=fields.text("compiler"),
        flags=fields.texts("flags"),
        sources=tuple(sources),
        lowering=lowering,
    )
    fields.done()
    return build


class _Fields:
    """One JSON object of the manifest, read field by field; every refusal names the field's path."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise BundleFormatError(f"a {type(value).__name__}, expected an object", context=path)
        self._values: JsonObject = value
        self._path = path
        self._read: set[str] = set()

    def at(self, key: str) -> str:
        return f"{self._path}.{key}"

    def has(self, key: str) -> bool:
        return key in self._values

    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def value(self, key: str) -> Any:
        self._read.add(key)
        if key not in self._values:
            raise BundleFormatError("missing", context=self.at(key))
        return self._values[key]

    def _typed(self, key: str, wanted: type, word: str) -> Any:
        value = self.value(key)
        if type(value) is not wanted:  # not isinstance: a bool is no integer
            raise BundleFormatError(f"a {type(value).__name__}, expected {word}", context=self.at(key))
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value: int = self._typed(key, int, "an integer")
        if not low <= value <= high:
            raise BundleFormatError(f"{value}, expected {low}..{high}", context=self.at(key))
        return value

    def boolean(self, key: str) -> bool:
        value: bool = self._typed(key, bool, "true or false")
        return value

    def text(self, key: str, pattern: re.Pattern[str] | None = None) -> str:
        return self._text(self.value(key), self.at(key), pattern)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise BundleFormatError(f"{value!r:.80}, expected one of {', '.join(choices)}", context=self.at(key))
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._typed(key, list, "an array")
        return tuple(self._text(value, f"{self.at(key)}[{i}]", None) for i, value in enumerate(values))

    def record(self, key: str) -> "_Fields":
        return _Fields(self.value(key), self.at(key))

    def records(self, key: str, most: int) -> list["_Fields"]:
        values = self._typed(key, list, "an array")
        if len(values) > most:
            raise BundleFormatError(f"{len(values)} entries, at most {most} allowed", context=self.at(key))
        return [_Fields(value, f"{self.at(key)}[{i}]") for i, value in enumerate(values)]

    def done(self) -> None:
        """Refuse keys that nobody read: a new meaning needs a new top-level key (FORMAT.md, "Growth")."""
        extra = sorted(self._values.keys() - self._read)
        if extra:
            raise BundleFormatError(f"unknown key {extra[0]!r:.80}", context=self._path)

    @staticmethod
    def _text(value: Any, path: str, pattern: re.Pattern[str] | None) -> str:
        if not isinstance(value, str):
            raise BundleFormatError(f"a {type(value).__name__}, expected a string", context=path)
        if len(value) > MAX_TEXT or not value.isprintable():
            raise BundleFormatError(f"{value[:40]!r}, expected at most {MAX_TEXT} printable characters", context=path)
        if pattern is not None and not pattern.fullmatch(value):
            raise BundleFormatError(f"{value[:80]!r} does not match {pattern.pattern}", context=path)
        return value
