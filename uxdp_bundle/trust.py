"""Whom to trust: trust.d/*.toml and revoked.toml, read strictly.

    # trust.d/example.toml                          # revoked.toml
    [[keys]]                                        keys = ["ed25519:…"]
    key = "ed25519:…"                               bundles = ["<64 hex digits>"]
    names = ["firewall", "lb-*"]
    role = "publisher"                              # the default
    not_before = 2026-01-01T00:00:00Z               # optional
    not_after = 2027-01-01T00:00:00Z                # optional
    comment = "Example Networks"                    # optional

    [[rules]]
    names = ["lb-*"]
    role = "auditor"
    threshold = 2

Every bundle needs one signature by a publisher. Each rule whose names match the bundle's raises the threshold of its
role, and never lowers one: no file can undo what another demands. The directories of the system and of the user are
read alike; root reads the system's alone. The user's own development key counts as a publisher of every name, and its
native code is used.

A role means what rules make of it. Two mean more: "publisher", which is always needed, and "native": only if a key that
signed a bundle is trusted in this role, native code that the bundle carries is used; otherwise it is compiled here.

A defect anywhere is an error: a file that is skipped could be the one that revokes a key or demands a second one.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from . import trusted_files
from .errors import KeyFileError
from .keys import PublicKey, development_key, development_key_path

TRUST_DIRECTORY: Final = "trust.d"
TRUST_SUFFIX: Final = ".toml"
REVOKED_NAME: Final = "revoked.toml"
DEFAULT_ROLE: Final = "publisher"
# Whoever signs in this role may bring machine code along, which nothing can show to be what the kernel verified.
NATIVE_ROLE: Final = "native"
MAX_THRESHOLD: Final = 16  # no bundle carries more signatures
MAX_FILES: Final = 1024
MAX_FILE_BYTES: Final = 1 << 20
MAX_PATTERN_CHARACTERS: Final = 256
MAX_COMMENT_CHARACTERS: Final = 1024
ROLE_PATTERN: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
BUNDLE_ID_PATTERN: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """One entry of ``[[keys]]``: this key may sign bundles of these names in this role, within these times."""

    key: PublicKey
    names: tuple[str, ...]
    role: str = DEFAULT_ROLE
    not_before: datetime | None = None
    not_after: datetime | None = None
    comment: str = ""
    source: str = ""

    def matches(self, name: str) -> bool:
        """Return whether this entry is about bundles of that name."""
        return _matches(self.names, name)


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``[[rules]]``: bundles of these names need that many different keys of this role."""

    names: tuple[str, ...]
    role: str
    threshold: int
    source: str = ""

    def matches(self, name: str) -> bool:
        """Return whether this entry is about bundles of that name."""
        return _matches(self.names, name)


@dataclass(frozen=True, slots=True)
class Revocations:
    """What revoked.toml lists; the values name the file that does."""

    keys: Mapping[PublicKey, str] = field(default_factory=dict)
    bundles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Everything that decides whether a bundle is trusted, except rollback."""

    keys: tuple[TrustedKey, ...] = ()
    rules: tuple[Rule, ...] = ()
    revocations: Revocations = field(default_factory=Revocations)

    @classmethod
    def load(cls) -> Self:
        """Read the trust of this process's user: the system's, for other users than root their own, and their key.

        :raises KeyFileError: a file or directory is malformed, or in the power of another user
        """
        keys: list[TrustedKey] = []
        rules: list[Rule] = []
        revoked_keys: dict[PublicKey, str] = {}
        revoked_bundles: dict[str, str] = {}
        for directory in trust_directories():
            files, revocations = read_trust_directory(directory)
            for file_keys, file_rules in files.values():
                keys += file_keys
                rules += file_rules
            revoked_keys.update(revocations.keys)
            revoked_bundles.update(revocations.bundles)
        own = development_key_path()
        if trusted_files.exists(own):
            key, _ = development_key(create=False)
            keys += [
                TrustedKey(key.public, ("*",), role, comment="development key", source=str(own))
                for role in (DEFAULT_ROLE, NATIVE_ROLE)
            ]
        return cls(tuple(keys), tuple(rules), Revocations(revoked_keys, revoked_bundles))

    def requirements(self, name: str) -> dict[str, int]:
        """Return how many different keys of which role a bundle of this name needs; at least one publisher."""
        thresholds = {DEFAULT_ROLE: 1}
        for rule in self.rules:
            if rule.matches(name):
                thresholds[rule.role] = max(thresholds.get(rule.role, 0), rule.threshold)
        return thresholds


TrustFile = tuple[tuple[TrustedKey, ...], tuple[Rule, ...]]


def trust_directories() -> tuple[Path, ...]:
    """Return the configuration directories whose trust this process's user follows, the system's first."""
    system = trusted_files.system_config_dir()
    return (system,) if os.geteuid() == 0 else (system, trusted_files.user_config_dir())


def read_trust_directory(directory: Path) -> tuple[dict[Path, TrustFile], Revocations]:
    """Read trust.d and revoked.toml of one configuration directory; both may be missing.

    :raises KeyFileError: see ``TrustStore.load``
    """
    if not trusted_files.exists(directory):
        return {}, Revocations()
    os.close(trusted_files.open_trusted(directory, directory=True))
    contents = trusted_files.read_trusted_directory(
        directory / TRUST_DIRECTORY, suffix=TRUST_SUFFIX, max_files=MAX_FILES, max_bytes=MAX_FILE_BYTES
    )
    files = {path: parse_trust_file(data, str(path)) for path, data in contents.items()}
    revoked = directory / REVOKED_NAME
    if not trusted_files.exists(revoked):
        return files, Revocations()
    data = trusted_files.read_trusted(revoked, max_bytes=MAX_FILE_BYTES)
    return files, parse_revocations(data, str(revoked))


def parse_trust_file(data: bytes, source: str) -> TrustFile:
    """Parse one file of trust.d.

    :param source: what error messages and the entries call it
    :raises KeyFileError: ``context`` is the file and the path of the key, such as ``a.toml: keys[0].names``
    """
    top = _Table(_parse_toml(data, source), source, "")
    keys = tuple(_trusted_key(entry, source) for entry in top.tables("keys"))
    rules = tuple(_rule(entry, source) for entry in top.tables("rules"))
    top.done()
    return keys, rules


def parse_revocations(data: bytes, source: str) -> Revocations:
    """Parse revoked.toml; see ``parse_trust_file``."""
    top = _Table(_parse_toml(data, source), source, "")
    keys = {}
    for i, text in enumerate(top.texts("keys", least=0)):
        keys[top.key(f"keys[{i}]", text)] = source
    bundles = {}
    for i, text in enumerate(top.texts("bundles", least=0)):
        if not BUNDLE_ID_PATTERN.fullmatch(text):
            top.refuse(f"bundles[{i}]", f"{text[:80]!r}, expected the 64 lower-case hex digits of a bundle id")
        bundles[text] = source
    top.done()
    return Revocations(keys, bundles)


def _trusted_key(entry: "_Table", source: str) -> TrustedKey:
    key = TrustedKey(
        key=entry.key("key", entry.text("key")),
        names=_names(entry),
        role=_role(entry),
        not_before=entry.moment("not_before"),
        not_after=entry.moment("not_after"),
        comment=entry.text("comment", ""),
        source=source,
    )
    if len(key.comment) > MAX_COMMENT_CHARACTERS or not key.comment.isprintable():
        entry.refuse("comment", f"expected at most {MAX_COMMENT_CHARACTERS} printable characters")
    if key.not_before is not None and key.not_after is not None and key.not_after < key.not_before:
        entry.refuse("not_after", f"{key.not_after.isoformat()} is before not_before, {key.not_before.isoformat()}")
    entry.done()
    return key


def _rule(entry: "_Table", source: str) -> Rule:
    rule = Rule(names=_names(entry), role=_role(entry), threshold=entry.integer("threshold"), source=source)
    if not 1 <= rule.threshold <= MAX_THRESHOLD:
        entry.refuse("threshold", f"{rule.threshold}, expected 1..{MAX_THRESHOLD}")
    entry.done()
    return rule


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    # Not fnmatch(), which folds case on some systems.
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _names(entry: "_Table") -> tuple[str, ...]:
    names = entry.texts("names", least=1)
    for i, pattern in enumerate(names):
        if not 1 <= len(pattern) <= MAX_PATTERN_CHARACTERS or not pattern.isprintable():
            entry.refuse(
                f"names[{i}]", f"{pattern[:80]!r}, expected a glob of 1..{MAX_PATTERN_CHARACTERS} printable characters"
            )
    return names


def _role(entry: "_Table") -> str:
    role = entry.text("role", DEFAULT_ROLE)
    if not ROLE_PATTERN.fullmatch(role):
        entry.refuse("role", f"{role[:80]!r}, expected a lower-case word such as {DEFAULT_ROLE!r}")
    return role


def _parse_toml(data: bytes, source: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as cause:
        raise KeyFileError(f"not UTF-8 at byte {cause.start}", context=source) from cause
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as cause:
        raise KeyFileError(f"not TOML: {cause}", context=source) from cause


class _Table:
    """One TOML table, read key by key; every refusal names the file and the key's full path."""

    def __init__(self, values: object, source: str, path: str) -> None:
        self._source = source
        self._path = path
        if not isinstance(values, dict):
            self.refuse("", f"{_kind(values)}, expected a table")
        self._values: dict[str, Any] = values
        self._read: set[str] = set()

    def refuse(self, key: str, message: str) -> NoReturn:
        raise KeyFileError(message, context=self._context(key))

    def _context(self, key: str) -> str:
        path = ".".join(part for part in (self._path, key) if part)
        return f"{self._source}: {path}" if path else self._source

    def key(self, key: str, text: str) -> PublicKey:
        try:
            return PublicKey.parse(text)
        except KeyFileError as error:
            error.context = self._context(key)
            raise

    def text(self, key: str, default: str | None = None) -> str:
        self._read.add(key)
        value = self._values.get(key, default)
        if value is None:
            self.refuse(key, "missing")
        if not isinstance(value, str):
            self.refuse(key, f"{_kind(value)}, expected a string")
        return value

    def integer(self, key: str) -> int:
        self._read.add(key)
        value = self._values.get(key)
        if value is None:
            self.refuse(key, "missing")
        if type(value) is not int:  # not isinstance: a boolean is no integer
            self.refuse(key, f"{_kind(value)}, expected an integer")
        return int(value)

    def texts(self, key: str, *, least: int) -> tuple[str, ...]:
        self._read.add(key)
        values = self._values.get(key, None if least else [])
        if values is None:
            self.refuse(key, "missing")
        if not isinstance(values, list) or len(values) < least:
            self.refuse(key, f"{_kind(values)}, expected an array of strings")
        for i, value in enumerate(values):
            if not isinstance(value, str):
                self.refuse(f"{key}[{i}]", f"{_kind(value)}, expected a string")
        return tuple(values)

    def moment(self, key: str) -> datetime | None:
        self._read.add(key)
        value = self._values.get(key)
        if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
            self.refuse(key, f"{_kind(value)}, expected a date and time with offset, such as 2027-01-01T00:00:00Z")
        return value

    def tables(self, key: str) -> list["_Table"]:
        self._read.add(key)
        values = self._values.get(key, [])
        if not isinstance(values, list):
            self.refuse(key, f"{_kind(values)}, expected an array of tables: [[{key}]]")
        path = f"{self._path}.{key}" if self._path else key
        return [_Table(value, self._source, f"{path}[{i}]") for i, value in enumerate(values)]

    def done(self) -> None:
        extra = sorted(self._values.keys() - self._read)
        if extra:
            known = ", ".join(sorted(self._read))
            self.refuse(extra[0][:80], f"unknown key, expected one of {known}")


def _kind(value: object) -> str:
    if isinstance(value, datetime):
        return "a date and time without offset"
    kinds: dict[type, str] = {
        dict: "a table",
        list: "an array" if value else "an empty array",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a float",
        date: "a date without time",
        time: "a time without date",
    }
    return kinds[type(value)]
