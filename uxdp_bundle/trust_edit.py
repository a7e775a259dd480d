"""Edit trust.d and revoked.toml, and leave what people wrote there in its order and with its comments.

A comment belongs to the entry above it, and goes when that entry goes. Each key that is added gets a file of its own.
Both what is read and what is about to be written must pass the strict reader, so that no edit leaves a directory that
authentication refuses; files appear at once by rename, and one lock serialises the writers.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import trusted_files
from .errors import KeyFileError
from .keys import PublicKey
from .trust import (
    BUNDLE_ID_PATTERN,
    MAX_FILE_BYTES,
    REVOKED_NAME,
    TRUST_DIRECTORY,
    TrustedKey,
    parse_revocations,
    parse_trust_file,
    read_trust_directory,
)

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o755
_PRIVATE_DIRECTORY_MODE = 0o700


def add_key(directory: Path, entry: TrustedKey) -> Path:
    """Trust a key: write ``entry`` to its file in ``directory``/trust.d and return that file's path.

    Names are added to an entry that is equal otherwise, if there is one.

    :param directory: a configuration directory, made if it does not exist
    :raises KeyFileError: the entry or the file is malformed, or the directory is not safe or not writable
    """
    path = directory / TRUST_DIRECTORY / f"ed25519-{entry.key.raw.hex()[:16]}.toml"
    with _editing(directory):
        document, data = _load(path)
        present, _ = parse_trust_file(data, str(path))
        for index, old in enumerate(present):
            if replace(old, names=(), source="") == replace(entry, names=(), source=""):
                _extend(document["keys"][index]["names"], old.names, entry.names)
                break
        else:
            _append_entry(document, entry)
        text = document.as_string().encode()
        parse_trust_file(text, str(path))
        _save(path, text)
    return path


def remove_key(directory: Path, key: PublicKey) -> tuple[Path, ...]:
    """Stop trusting a key: take it out of every file of ``directory``/trust.d and return the files that had it.

    A file that then has neither keys nor rules is deleted.

    :raises KeyFileError: no file has the key, or as ``add_key``
    """
    changed = []
    if trusted_files.exists(directory / TRUST_DIRECTORY):
        with _editing(directory):
            for path, (entries, rules) in read_trust_directory(directory)[0].items():
                positions = [index for index, entry in enumerate(entries) if entry.key == key]
                if not positions:
                    continue
                changed.append(path)
                if len(positions) == len(entries) and not rules:
                    _delete(path)
                else:
                    _remove_entries(path, positions)
    if not changed:
        raise KeyFileError(
            f"{key} is in none of its files",
            context=str(directory / TRUST_DIRECTORY),
            remedy="`uxdp trust list` shows which key is where",
        )
    return tuple(changed)


def revoke(directory: Path, keys: Iterable[PublicKey] = (), bundles: Iterable[str] = ()) -> Path:
    """Revoke keys and bundle ids: add them to ``directory``/revoked.toml and return its path.

    :raises KeyFileError: a bundle id is malformed, or as ``add_key``
    """
    path = directory / REVOKED_NAME
    bundles = tuple(bundles)
    for bundle_id in bundles:
        if not BUNDLE_ID_PATTERN.fullmatch(bundle_id):
            raise KeyFileError(f"{bundle_id[:80]!r} is no bundle id, expected 64 lower-case hex digits")
    with _editing(directory):
        document, data = _load(path)
        present = parse_revocations(data, str(path))
        _extend_list(document, "keys", [key.text for key in present.keys], [key.text for key in keys])
        _extend_list(document, "bundles", present.bundles, bundles)
        text = document.as_string().encode()
        parse_revocations(text, str(path))
        _save(path, text)
    return path


@contextmanager
def _editing(directory: Path) -> Iterator[None]:
    """Make the configuration directory and its trust.d if they are missing, and hold their lock."""
    system = directory == trusted_files.system_config_dir()
    parents_mode = _DIRECTORY_MODE if system else _PRIVATE_DIRECTORY_MODE
    trusted_files.ensure_directory(directory / TRUST_DIRECTORY, mode=_DIRECTORY_MODE, parents_mode=parents_mode)
    with trusted_files.locked(directory):
        yield


def _load(path: Path) -> "tuple[TOMLDocument, bytes]":
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    data = trusted_files.read_trusted(path, max_bytes=MAX_FILE_BYTES) if trusted_files.exists(path) else b""
    try:
        return tomlkit.parse(data), data
    except (TOMLKitError, UnicodeDecodeError) as cause:
        raise KeyFileError(f"not TOML: {cause}", context=str(path)) from cause


def _append_entry(document: "TOMLDocument", entry: TrustedKey) -> None:
    import tomlkit
    from tomlkit.items import AoT

    if "keys" not in document:
        document.add("keys", tomlkit.aot())
    entries = _sequence(document, "keys")
    table = tomlkit.table() if isinstance(entries, AoT) else tomlkit.inline_table()
    values: dict[str, str | list[str] | datetime | None] = {
        "key": entry.key.text,
        "names": list(entry.names),
        "role": entry.role,
        "not_before": entry.not_before,
        "not_after": entry.not_after,
        "comment": entry.comment or None,
    }
    for name, value in values.items():
        if value is not None:
            table.add(name, value)
    entries.append(table)


def _extend(values: Any, present: Iterable[str], new: Iterable[str]) -> None:
    known = set(present)
    for value in new:
        if value not in known:
            values.append(value)
            known.add(value)


def _extend_list(document: "TOMLDocument", name: str, present: Iterable[str], new: Iterable[str]) -> None:
    import tomlkit

    new = list(new)
    if new and name not in document:
        document.add(name, tomlkit.array().multiline(True))
    if new:
        _extend(_sequence(document, name), present, new)


def _remove_entries(path: Path, positions: list[int]) -> None:
    document, _ = _load(path)
    entries = _sequence(document, "keys")
    for position in reversed(positions):
        del entries[position]
    if not entries:
        del document["keys"]
    text = document.as_string().encode()
    parse_trust_file(text, str(path))
    _save(path, text)


def _sequence(document: "TOMLDocument", name: str) -> Any:
    # tomlkit's type of an item covers everything that TOML has; the strict reader has shown that this is an array.
    return document[name]


def _save(path: Path, text: bytes) -> None:
    try:
        trusted_files.replace_file(path, text, _FILE_MODE)
    except OSError as cause:
        raise trusted_files.unwritable(path, cause) from cause


def _delete(path: Path) -> None:
    try:
        path.unlink()
    except OSError as cause:
        raise trusted_files.unwritable(path, cause) from cause
