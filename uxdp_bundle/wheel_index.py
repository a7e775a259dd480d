"""The index of a wheel: which bundles it installs, readable without running any code of the package.

The hatch plugin writes it, ``installed`` reads it. It lies in the wheel's metadata, at
``NAME-VERSION.dist-info/extra_metadata/uxdp/index.json``, so that the RECORD lists its digest and pip removes it:

    {"schema": 1, "bundles": [{"name", "version", "path", "bundle_id", "sha256"}, ...]}

``path`` is relative to the folder that holds the .dist-info. In an editable install, ``"editable": true`` is added and
``path`` is the absolute path of the live file in the project's tree; the digests are then those of the installation's
moment. Parsing is pure; every defect is an InstalledError that names the field.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import canonical
from .canonical import JsonObject
from .errors import InstalledError
from .manifest import NAME_PATTERN, VERSION_PATTERN

SCHEMA: Final = 1
INDEX_NAME: Final = "uxdp/index.json"
INDEX_PATH: Final = f"extra_metadata/{INDEX_NAME}"
BUNDLE_SUFFIX: Final = ".uxdp"
# An entry has some 300 bytes, so this bound is never the one that a wheel of MAX_BUNDLES meets.
MAX_INDEX_BYTES: Final = 256 << 10
MAX_BUNDLES: Final = 256
MAX_PATH_CHARACTERS: Final = 1024

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = frozenset(("name", "version", "path", "bundle_id", "sha256"))


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One bundle of a wheel; ``path`` is relative to the site directory, or absolute when ``editable``."""

    name: str
    version: str
    path: str
    bundle_id: str
    sha256: str
    editable: bool = False


def encode_index(entries: Iterable[IndexEntry]) -> bytes:
    """Return the index of ``entries``, sorted by name, in canonical form.

    :raises InstalledError: an entry that ``parse_index`` would refuse
    """
    bundles = []
    for entry in sorted(entries, key=lambda entry: entry.name):
        record: JsonObject = {key: getattr(entry, key) for key in _KEYS}
        if entry.editable:
            record["editable"] = True
        bundles.append(record)
    data = canonical.dumps({"schema": SCHEMA, "bundles": bundles})
    parse_index(data, what="index")
    return data


def parse_index(data: bytes, *, what: str) -> tuple[IndexEntry, ...]:
    """Parse an index strictly.

    :param data: the bytes of index.json
    :param what: the path of the file, for messages
    :raises InstalledError: ``context`` is ``what`` and the field, such as ``…/index.json: bundles[0].path``
    """
    top = canonical.loads(data, what=what, max_bytes=MAX_INDEX_BYTES, error=InstalledError)
    _check_keys(top, frozenset(("schema", "bundles")), frozenset(), what)
    schema = top["schema"]
    if type(schema) is not int or schema != SCHEMA:
        raise InstalledError(
            f"{schema!r}, this version reads {SCHEMA}", context=f"{what}: schema", remedy="install a newer uxdp"
        )
    bundles = top["bundles"]
    if not isinstance(bundles, list):
        raise InstalledError(f"a {type(bundles).__name__}, expected an array", context=f"{what}: bundles")
    if len(bundles) > MAX_BUNDLES:
        raise InstalledError(f"{len(bundles)} entries, at most {MAX_BUNDLES} allowed", context=f"{what}: bundles")
    entries = tuple(_entry(item, f"{what}: bundles[{i}]") for i, item in enumerate(bundles))
    _check_names(entries, what)
    return entries


def _entry(item: Any, where: str) -> IndexEntry:
    if not isinstance(item, dict):
        raise InstalledError(f"a {type(item).__name__}, expected an object", context=where)
    _check_keys(item, _KEYS, frozenset(("editable",)), where)
    editable = item.get("editable", False)
    if "editable" in item and editable is not True:
        raise InstalledError(f"{editable!r}, expected true or no such key", context=f"{where}.editable")
    return IndexEntry(
        name=_text(item, "name", where, NAME_PATTERN),
        version=_text(item, "version", where, VERSION_PATTERN),
        path=_path(item["path"], f"{where}.path", absolute=editable),
        bundle_id=_text(item, "bundle_id", where, _SHA256),
        sha256=_text(item, "sha256", where, _SHA256),
        editable=editable,
    )


def _check_keys(item: JsonObject, wanted: frozenset[str], optional: frozenset[str], where: str) -> None:
    missing = sorted(wanted - item.keys())
    if missing:
        raise InstalledError(f"key {missing[0]!r} is missing", context=where)
    unknown = sorted(item.keys() - wanted - optional)
    if unknown:
        raise InstalledError(f"unknown key {unknown[0]!r}", context=where)


def _text(item: JsonObject, key: str, where: str, pattern: re.Pattern[str]) -> str:
    value = item[key]
    if not isinstance(value, str):
        raise InstalledError(f"a {type(value).__name__}, expected a string", context=f"{where}.{key}")
    if not pattern.fullmatch(value):
        raise InstalledError(f"{value[:80]!r} does not match {pattern.pattern}", context=f"{where}.{key}")
    return value


def _path(value: Any, where: str, *, absolute: bool) -> str:
    """Check a path that cannot leave the folder it is resolved in, or an absolute one without detours."""
    if not isinstance(value, str):
        raise InstalledError(f"a {type(value).__name__}, expected a string", context=where)
    if len(value) > MAX_PATH_CHARACTERS or not value.isprintable():
        raise InstalledError(
            f"{value[:40]!r}, expected at most {MAX_PATH_CHARACTERS} printable characters", context=where
        )
    if value.startswith("/") != absolute:
        wanted = "an absolute path (the entry is editable)" if absolute else "a path relative to the site directory"
        raise InstalledError(f"{value!r}, expected {wanted}", context=where)
    parts = path_parts(value)
    if "\\" in value or any(part in ("", ".", "..") for part in parts):
        raise InstalledError(f"{value!r}, expected a path without '.', '..', '//' and '\\'", context=where)
    if not value.endswith(BUNDLE_SUFFIX):
        raise InstalledError(f"{value!r}, expected a {BUNDLE_SUFFIX} file", context=where)
    return value


def path_parts(path: str) -> Sequence[str]:
    """Return the components of an entry's path, from the site directory or from ``/``."""
    return path.removeprefix("/").split("/")


def _check_names(entries: tuple[IndexEntry, ...], what: str) -> None:
    seen: set[str] = set()
    for i, entry in enumerate(entries):
        if entry.name in seen:
            raise InstalledError(f"{entry.name!r} stands twice in one index", context=f"{what}: bundles[{i}].name")
        seen.add(entry.name)
