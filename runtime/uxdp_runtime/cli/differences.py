"""How ``uxdp test`` shows where kernel and native code differ: frames side by side, map elements field by field."""

import errno
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from .. import hexdump
from ..differential import ChangeDifference, FrameDifference
from ..map_layout import Notation
from ..map_values import MapCodec
from ..outcomes import MapDifference, Outcome, Records, verdict_name
from . import output

_SHOWN_BYTES: Final = 256
_NOTHING: Final = "—"
_ABSENT: Final = object()


def print_frame(difference: FrameDifference) -> None:
    """Print the frame that was given, and what the two sides made of it."""
    kernel, native = difference.kernel, difference.native
    output.say(f"  frame {difference.number}: {difference.frame.description}")
    for line in hexdump.rows(difference.frame.metadata):
        output.say(f"    metadata {line}")
    for line in hexdump.rows(difference.frame.data[:_SHOWN_BYTES]):
        output.say(f"    {line}")
    if len(difference.frame.data) > _SHOWN_BYTES:
        output.say(f"    … {len(difference.frame.data) - _SHOWN_BYTES} bytes more")
    output.say(f"  {'':10} {'kernel':28} native")
    for name, one, other in _table(kernel, native):
        line = f"  {name:10} {one:28} {other}"
        click.echo(click.style(output.printable(line), bold=True) if one != other else output.printable(line))
    if difference.what == "bytes":
        _print_bytes("the frame afterwards", kernel.data, native.data)
    elif difference.what == "metadata":
        _print_bytes("its metadata afterwards", kernel.metadata, native.metadata)
    for written, instead in zip(kernel.records, native.records, strict=True):
        if written != instead:
            _print_records(written, instead)


def print_element(item: MapDifference, codec: MapCodec, name: str) -> None:
    """Print an element of a map: where only one side has it, the value; otherwise the fields that differ."""
    output.say(f"  map {name}, key {_text(codec.decode_key(item.key, notation=Notation.ADDRESSES))}")
    for side, other, value in (("kernel", "natively", item.kernel), ("native", "in the kernel", item.native)):
        if value is None:
            continue
        if item.kernel is None or item.native is None:
            shown = _text(codec.decode(value, notation=Notation.ADDRESSES))
            output.say(f"    {side:7} {shown}  (not there {other})")
    for path, one, two in fields(item, codec):
        output.say(f"    {path or 'value'}: kernel {_shown(one)}, native {_shown(two)}")


def print_change(difference: ChangeDifference, codec: MapCodec, name: str) -> None:
    """Print a change of a map that the sides answer differently."""
    change = difference.change
    key = _text(codec.decode_key(change.key, notation=Notation.ADDRESSES))
    what = "delete" if change.value is None else "update"
    output.say(f"  map {name}, key {key}: {what}" + (f", flags {change.flags}" if change.flags else ""))
    for side, number in (("kernel", difference.kernel), ("native", difference.native)):
        output.say(f"    {side}: {f'{errno.errorcode.get(number, number)}' if number else 'done'}")


def frame_json(difference: FrameDifference) -> dict[str, Any]:
    """Return a difference between frames as JSON-able values; bytes are hex."""
    return {
        "frame": difference.number,
        "what": difference.what,
        "in_bursts": difference.in_bursts,
        "description": difference.frame.description,
        "given": difference.frame.data.hex(),
        "given_metadata": difference.frame.metadata.hex(),
        "kernel": _outcome_json(difference.kernel),
        "native": _outcome_json(difference.native),
    }


def element_json(item: MapDifference, codec: MapCodec, name: str) -> dict[str, Any]:
    """Return a difference between maps as JSON-able values: bytes in hex, and decoded by the map's types."""
    return {
        "map": name,
        "in_bursts": item.in_bursts,
        "key": codec.decode_key(item.key),
        "kernel": None if item.kernel is None else codec.decode(item.kernel),
        "native": None if item.native is None else codec.decode(item.native),
        "fields": [path for path, _one, _other in fields(item, codec)],
        "bytes": {
            "key": item.key.hex(),
            "kernel": None if item.kernel is None else item.kernel.hex(),
            "native": None if item.native is None else item.native.hex(),
        },
    }


def fields(item: MapDifference, codec: MapCodec) -> list[tuple[str, Any, Any]]:
    """Return the fields of a value that differ, as C writes their paths, and both their values.

    None if only one side has the element; none that differs by chance. A path in a per-CPU map begins with ``[cpu N]``.
    """
    if item.kernel is None or item.blamed is None:
        return []
    sides = (item.kernel, item.blamed)
    if not codec.is_per_cpu:
        one, other = (codec.decode(side, notation=Notation.ADDRESSES) for side in sides)
        return _or_bytes(list(_walk("", one, other)), *sides)
    found = []
    for cpu, (one, other) in enumerate(zip(*map(codec.split, sides), strict=True)):
        decoded = (codec.value.decode(side, 0, Notation.ADDRESSES) for side in (one, other))
        found += [(f"[cpu {cpu}]{'.' if path else ''}{path}", *values) for path, *values in _walk("", *decoded)]
    return _or_bytes([(path, one, other) for path, one, other in found], *sides)


def _or_bytes(found: list[tuple[str, Any, Any]], one: bytes, other: bytes) -> list[tuple[str, Any, Any]]:
    """Return what was found, or the whole value in hex if the difference is in what has no name, such as padding."""
    return found or [("bytes", one.hex(), other.hex())]


def _walk(path: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            yield from _walk(f"{path}.{name}" if path else name, one.get(name, _ABSENT), other.get(name, _ABSENT))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _walk(f"{path}[{index}]", *pair)
    elif one != other:
        yield path, one, other


def _table(kernel: Outcome, native: Outcome) -> Iterator[tuple[str, str, str]]:
    yield "verdict", verdict_name(kernel.verdict), verdict_name(native.verdict)
    yield "length", f"{len(kernel.data)} bytes", f"{len(native.data)} bytes"
    yield "metadata", kernel.metadata.hex(" ") or _NOTHING, native.metadata.hex(" ") or _NOTHING
    if kernel.redirect is not None:
        yield "redirect", str(kernel.redirect), str(native.redirect or _NOTHING)


def _print_bytes(what: str, kernel: bytes, native: bytes) -> None:
    output.say(f"  {what}; they differ from offset {hexdump.first_difference(kernel, native):#06x} on")
    output.say(f"         {'kernel':23}  |  native")
    for line in hexdump.side_by_side(kernel, native, mark=_highlighted):
        click.echo(f"  {line}")  # digits, and colours on a terminal


def _print_records(kernel: Records, native: Records) -> None:
    output.say(f"  ring buffer {kernel.map}:")
    for side, records in (("kernel", kernel), ("native", native)):
        count = len(records.submitted)
        output.say(f"    {side} reserved {records.reserved_bytes} bytes and submitted {count} records")
    for number, (one, other) in enumerate(zip(kernel.submitted, native.submitted, strict=False)):
        if one != other:
            _print_bytes(f"record {number}, {len(one)} and {len(other)} bytes", one, other)


def _highlighted(digits: str) -> str:
    return click.style(digits, fg="red", bold=True)


def _shown(value: Any) -> str:
    return "not there" if value is _ABSENT else _text(value)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    redirect = outcome.redirect
    return {
        "verdict": verdict_name(outcome.verdict),
        "data": outcome.data.hex(),
        "metadata": outcome.metadata.hex(),
        "redirect": None
        if redirect is None
        else {"map": redirect.map, "index": redirect.index, "broadcast": redirect.is_broadcast},
        "records": {
            records.map: {
                "reserved_bytes": records.reserved_bytes,
                "submitted": [record.hex() for record in records.submitted],
            }
            for records in outcome.records
        },
    }
