"""Contents of maps as people write them and as tools print them: JSON files, assignments on the command line, dumps.

A file is one JSON object of maps. A map is a list of elements or an object::

    {
      "config": {"0": {"gateway_mac": "02:00:00:00:00:fe", "local_addr": "10.0.0.1"}},
      "vips": [{"key": {"addr": "198.51.100.10", "port": 80, "proto": 6}, "value": {"ring_slots": 2}}],
      "counters": [{"key": 0, "values": [{"cpu": 0, "value": 7}]}],
      "rules4": {"10.0.0.0/8": 0},
      "flows": … what `bpftool --json map dump` printed …
    }

An element of bpftool's holds its bytes as lists of ``"0x00"``, and these count; if there is nothing but its
``formatted`` object, that is read as bpftool means it (see Notation.BPFTOOL). Empty slots, which bpftool prints as
``{"error": "No such file or directory"}``, are skipped.

What is in a map of maps is the name of a declared map, or ``{"max_entries": 1000}`` for a new one; the new one's
elements go by ``OUTER[KEY]``::

    {"caches": {"0": {"max_entries": 1000}, "1": "cache_of_others"}, "caches[0]": {"10.0.0.1": 7}}

Values of a map without keys (queue, stack, Bloom filter) are a list in the order in which they are pushed: ``{"jobs":
[1, 2, 3]}``; an assignment is ``jobs:=3``.

An assignment is ``MAP:KEY=VALUE``. Key and value are JSON or plain text: ``ring:0=3``, ``reals:0=10.0.0.11``,
``vips:{"addr":"10.0.0.1","port":80,"proto":6}={"id":0}``, ``rules6:2001:db8::/32=1``, ``flags:0=0a 00 ff ff``.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from . import map_text
from .bpf.cpus import num_possible_cpus
from .bpf.inner_maps import inner_name, split_inner_name
from .errors import ParameterError
from .map_layout import Notation, describe
from .map_values import MapCodec, MapValueError

_EMPTY_SLOT: Final = {"error": "No such file or directory"}
_ELEMENT_MEMBERS: Final = frozenset({"key", "value", "values", "formatted"})
_ASSIGNMENT: Final = re.compile(r"(?P<map>[^:[]*[^:[\s][^:[]*(?:\[.*?\])?\s*):(?P<rest>.*)", re.DOTALL)
_INNER: Final = re.compile(r"(?P<outer>[^[]+)\[(?P<key>.*)\]")
_JSON_BEGINS: Final = ("{", "[", '"')

Contents = dict[str, list[tuple[bytes, bytes]]]


class MapFileError(ParameterError):
    """A file or assignment is malformed or names what does not exist; ``context`` is the file and the place in it."""


class Assignment(NamedTuple):
    """One element: key and value as bpf(2) takes them."""

    map_name: str
    key: bytes
    value: bytes


def read_map_file(
    data: bytes,
    path: str | Path | None,
    assignments: Sequence[str] = (),
    *,
    cpus: int | None = None,
    codecs: Mapping[str, MapCodec] | None = None,
) -> Contents:
    """Return the elements that a file and assignments give the maps of an object, in their order.

    :param data: the whole object
    :param path: a file, or None
    :param assignments: as for ``parse_assignment``; they come after the file's
    :param cpus: values that an element of a per-CPU map has; None: as many as in this kernel
    :param codecs: of the object's maps; None: those of their types
    :raises MapFileError: the file cannot be read or is not of this form
    :raises MapValueError: a key or value does not fit its map
    """
    if path is None and not assignments:
        return {}
    codecs = MapCodec.for_object(data) if codecs is None else codecs
    cpus = num_possible_cpus() if cpus is None else cpus
    contents = load(path, codecs, cpus=cpus) if path is not None else {}
    for text in assignments:
        name, key, value = parse_assignment(text, codecs, cpus=cpus)
        contents.setdefault(name, []).append((key, value))
    return contents


def load(path: str | Path, codecs: Mapping[str, MapCodec], *, cpus: int) -> Contents:
    """Return the elements that a file gives the maps.

    :raises MapFileError: the file cannot be read or is not of this form
    :raises MapValueError: a key or value does not fit its map
    """
    source = str(path)
    try:
        text = Path(path).read_bytes()
    except OSError as cause:
        raise MapFileError(f"cannot be read: {cause.strerror or cause}", context=source) from cause
    return load_text(text, codecs, cpus=cpus, source=source)


def load_text(text: bytes | str, codecs: Mapping[str, MapCodec], *, cpus: int, source: str) -> Contents:
    """Return the elements that a file's text gives the maps; ``source`` names it in errors."""
    return load_document(parse_document(text, source), codecs, cpus=cpus, source=source)


def load_document(document: Any, codecs: Mapping[str, MapCodec], *, cpus: int, source: str) -> Contents:
    """Return the elements that a JSON document gives the maps; ``source`` names it in errors."""
    if not isinstance(document, dict):
        raise MapFileError(
            f"{describe(document)}, expected an object of maps by name",
            context=source,
            remedy='put the map\'s name around it: {"NAME": …}',
        )
    contents: Contents = {}
    # Maps of maps first: what is in their maps comes after these are there.
    for name, elements in sorted(document.items(), key=lambda item: "[" in item[0]):
        codec = find_codec(name, codecs, source)
        if isinstance(elements, dict):
            pairs = [_keyed(codec, key, value, cpus, source) for key, value in elements.items()]
        elif isinstance(elements, list):
            found = (_listed(codec, item, f"[{index}]", cpus, source) for index, item in enumerate(elements))
            pairs = [pair for pair in found if pair is not None]
        else:
            raise MapFileError(
                f"{describe(elements)}, expected a list of elements, or an object of values by key",
                context=f"{source}: map {name}",
            )
        contents.setdefault(codec.name, []).extend(pairs)
    return contents


def parse_assignment(text: str, codecs: Mapping[str, MapCodec], *, cpus: int) -> Assignment:
    """Return the element that ``MAP:KEY=VALUE`` describes.

    :raises MapFileError: it has not this form, or there is no such map
    :raises MapValueError: key or value does not fit the map
    """
    source = describe(text)
    parted = _ASSIGNMENT.match(text)
    if parted is None:
        raise MapFileError("expected MAP:KEY=VALUE", context=source)
    codec = find_codec(parted["map"].strip(), codecs, source)
    key, value = _split(parted["rest"], codec, source)
    try:
        return Assignment(codec.name, codec.encode_key(key), codec.encode(value, cpus=cpus))
    except MapValueError as error:
        raise error.at(source) from error


def dump(
    contents: Mapping[str, Iterable[tuple[bytes, bytes]]],
    codecs: Mapping[str, MapCodec],
    *,
    notation: Notation = Notation.NETWORK,
) -> dict[str, list[dict[str, Any]]]:
    """Return maps as JSON-able values that ``load`` reads again, without loss.

    An element is ``{"key": …, "value": …}``, of a per-CPU map ``{"key": …, "values": [{"cpu": 0, "value": …}]}``. In
    BPFTOOL, and where padding or the like would get lost, it is what ``bpftool --json map dump`` prints: the bytes, and
    under ``formatted`` the values.

    :param contents: (key, value) pairs by map, as bpf(2) gives them
    """
    dumped = {}
    for name, items in contents.items():
        codec = codec_of(name, codecs)
        shown = readable_name(name, codecs)
        dumped[shown] = elements_of(codec, items, notation)
    return dumped


def elements_of(codec: MapCodec, items: Iterable[tuple[bytes, bytes]], notation: Notation) -> list[dict[str, Any]]:
    """Return elements of one map as ``dump`` writes them."""
    return [_element(codec, key, value, notation) for key, value in items]


# --- elements


def _listed(codec: MapCodec, item: Any, place: str, cpus: int, source: str) -> tuple[bytes, bytes] | None:
    """Return one element of a list; None for an empty slot."""
    if codec.has_no_keys and not (isinstance(item, dict) and item.keys() == {"value"}):
        item = {"value": item}
    if not isinstance(item, dict) or not item.keys() <= _ELEMENT_MEMBERS:
        raise MapFileError(
            f'{describe(item)}, expected {{"key": …, "value": …}}', context=f"{source}: map {codec.name}, {place}"
        )
    notation = Notation.NETWORK
    if "formatted" in item and not item.keys() & {"value", "values"}:
        formatted = item["formatted"]
        notation = Notation.BPFTOOL
        if not isinstance(formatted, dict):
            raise MapFileError(
                f"formatted: {describe(formatted)}, expected an object", context=f"{source}: map {codec.name}, {place}"
            )
        item = {"key": item["key"]} | formatted if "key" in item else formatted
    values = [item[name] for name in ("value", "values") if name in item]
    if len(values) != 1 or ("key" not in item and not codec.is_global_data and not codec.has_no_keys):
        raise MapFileError(
            f"has {', '.join(item) or 'nothing'}, expected a key and a value",
            context=f"{source}: map {codec.name}, {place}",
        )
    if values[0] == _EMPTY_SLOT and map_text.hex_list(item.get("key"), codec.key.size) is not None:
        return None
    try:
        key = codec.encode_key(item.get("key", None if codec.has_no_keys else 0), notation=notation)
        return key, codec.encode(values[0], cpus=cpus, notation=notation)
    except MapValueError as error:
        raise error.at(source, place) from error


def _keyed(codec: MapCodec, text: str, value: Any, cpus: int, source: str) -> tuple[bytes, bytes]:
    """Return one element of an object, whose key is text."""
    try:
        return codec.encode_key(parse_text(text, source)), codec.encode(value, cpus=cpus)
    except MapValueError as error:
        raise error.at(source, f"[{json.dumps(text)}]") from error


def _element(codec: MapCodec, key: bytes, value: bytes, notation: Notation) -> dict[str, Any]:
    name = "values" if codec.is_per_cpu else "value"
    if codec.has_no_keys:
        return _pushed(codec, value, notation)
    written = {"key": codec.decode_key(key, notation=notation), name: codec.decode(value, notation=notation)}
    if notation is not Notation.BPFTOOL:
        cpus = len(codec.split(value)) if codec.is_per_cpu else 1
        with suppress(MapValueError):  # it names what does not exist any more
            if codec.encode_key(written["key"]) == key and codec.encode(written[name], cpus=cpus) == value:
                return written
    raw: list[Any] = map_text.as_hex_list(value)
    if codec.is_per_cpu:
        raw = [{"cpu": cpu, "value": map_text.as_hex_list(part)} for cpu, part in enumerate(codec.split(value))]
    element: dict[str, Any] = {"key": map_text.as_hex_list(key), name: raw}
    if codec.is_typed:
        if codec.is_global_data and notation is Notation.BPFTOOL:
            del written["key"]  # bpftool knows no type of it
        element["formatted"] = written
    return element


def _pushed(codec: MapCodec, value: bytes, notation: Notation) -> dict[str, Any]:
    """Return a value of a map without keys."""
    written = codec.decode(value, notation=notation)
    with suppress(MapValueError):
        if codec.encode(written) == value:
            return {"value": written}
    return {"value": map_text.as_hex_list(value)}


# --- text


def find_codec(name: str, codecs: Mapping[str, MapCodec], source: str) -> MapCodec:
    """Return the codec of a map, or of one in a map of maps, ``OUTER[KEY]``; its name is as stores have it.

    :raises MapFileError: there is no such map; ``context`` is the source
    :raises MapValueError: the key does not fit the outer map
    """
    codec = codecs.get(name)
    parted = _INNER.fullmatch(name) if codec is None else None
    outer = codecs.get(parted["outer"].strip()) if parted is not None else None
    if parted is not None and outer is not None and outer.inner is not None:
        key = outer.encode_key(parse_text(parted["key"], source))
        definition = replace(outer.inner.definition, name=inner_name(outer.name, key))
        return replace(outer.inner, definition=definition)
    if codec is None:
        near = difflib.get_close_matches(name, codecs, n=1)
        maps = ", ".join(codecs) or "none"
        remedy = f"did you mean {near[0]}?" if near else ""
        raise MapFileError(f"there is no map {name!r}; the maps are: {maps}", context=source, remedy=remedy)
    return codec


def codec_of(name: str, codecs: Mapping[str, MapCodec]) -> MapCodec:
    """Return the codec of a map by the name that stores have for it."""
    parted = split_inner_name(name)
    codec = codecs[name if parted is None else parted[0]]
    if parted is None:
        return codec
    assert codec.inner is not None  # noqa: S101  # stores have such names for maps in maps of maps alone
    return replace(codec.inner, definition=replace(codec.inner.definition, name=name))


def readable_name(name: str, codecs: Mapping[str, MapCodec]) -> str:
    """Return what people call a map, by the name that stores have for it: ``OUTER[KEY]`` with the key as JSON."""
    parted = split_inner_name(name)
    if parted is None:
        return name
    key = codecs[parted[0]].decode_key(parted[1])
    return f"{parted[0]}[{json.dumps(key, ensure_ascii=False)}]"


def _split(text: str, codec: MapCodec, source: str) -> tuple[Any, Any]:
    """Return key and value of ``KEY=VALUE``."""
    text = text.lstrip()
    if text.startswith(_JSON_BEGINS):
        try:
            key, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError) as cause:
            raise MapFileError(f"the key is not JSON: {cause}", context=source) from cause
        rest = text[end:].lstrip()
        if not rest.startswith("="):
            raise MapFileError(f"{describe(rest)} behind the key, expected =VALUE", context=source)
        return key, parse_text(rest[1:], source)
    key, equals, value = text.partition("=")
    if not equals or (not key.strip() and not codec.has_no_keys):
        raise MapFileError("expected MAP:KEY=VALUE", context=source)
    return parse_text(key, source), parse_text(value, source)


def parse_text(text: str, source: str) -> Any:
    """Return what the text of a key or value means: JSON if it is, else itself.

    :raises MapFileError: it begins like JSON and is none
    """
    text = text.strip()
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as cause:
        if text.startswith(("{", "[")):
            raise MapFileError(f"{describe(text)} is not JSON: {cause}", context=source) from cause
        return text


def parse_document(text: bytes | str, source: str) -> Any:
    """Return the JSON document that a text is.

    :raises MapFileError: it is none; ``context`` is the place in it
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode())
    except json.JSONDecodeError as cause:
        place = f"{source}, line {cause.lineno}, column {cause.colno}"
        raise MapFileError(f"is not JSON: {cause.msg}", context=place) from cause
    except (ValueError, RecursionError) as cause:
        raise MapFileError(f"is not JSON that can be read: {cause}", context=source) from cause


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; bpftool gives all anonymous members of a structure the same empty name."""
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name == "" and isinstance(value, dict):
            members = value
        else:
            members = {name: value}
        again = result.keys() & members.keys()
        if again:
            raise ValueError(f"the name {min(again)!r} stands twice in one object")
        result |= members
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)
