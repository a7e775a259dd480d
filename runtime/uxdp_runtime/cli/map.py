"""``uxdp map``: the maps of a running service."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from . import output

_LOAD_BYTES: Final = 1 << 20  # of elements in one request, as JSON
_PAGES: Final = 1 << 20
_POLL_SECONDS: Final = 0.1

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("map")
def map_group() -> None:
    """Read and write the maps of a running service, by the types that its program declares.

    Keys and values are JSON, or text: numbers, IP and MAC addresses, prefixes, bytes in hex; names of interfaces in
    devmaps, of programs in prog_arrays. Global data are the maps .data and .bss, with the key 0.

    \b
    Example:
      sudo uxdp map list load_balancer
      sudo uxdp map set firewall rules4 10.0.0.0/8 '{"action": "XDP_DROP"}'
      sudo uxdp map dump load_balancer reals
    """


@map_group.command("list")
@click.argument("service", metavar="NAME")
@_as_json
def list_maps(service: str, as_json: bool) -> None:
    """List the maps of a service."""
    maps = _ask(service, "map-list")
    if as_json:
        output.print_json(maps)
        return
    rows = [
        (
            item["name"],
            item["type"],
            str(item["key_size"]),
            str(item["value_size"]) + (f" x {item['cpus']}" if item["cpus"] > 1 else ""),
            str(item["max_entries"]),
            "kernel" if item["in_kernel"] else "store",
        )
        for item in maps
    ]
    output.print_table(service, ("Map", "Type", "Key bytes", "Value bytes", "Entries", "Where"), rows)


@map_group.command()
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@click.argument("key")
@_as_json
def get(service: str, table: str, key: str, as_json: bool) -> None:
    """Show one element."""
    found = _ask(service, "map-get", map=table, key=_parsed(key), notation=_notation(as_json=as_json))
    if as_json:
        output.print_json(found)
    else:
        output.say(_line(found))


@map_group.command("set")
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@click.argument("key")
@click.argument("value")
@click.option("--only", "flags", type=click.Choice(["new", "existing"]), help="Refuse to replace, or to add.")
def set_element(service: str, table: str, key: str, value: str, flags: str | None) -> None:
    """Set one element."""
    _ask(service, "map-set", map=table, key=_parsed(key), value=_parsed(value), flags=flags or "any")


@map_group.command()
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@click.argument("key")
def delete(service: str, table: str, key: str) -> None:
    """Delete one element."""
    _ask(service, "map-delete", map=table, key=_parsed(key))


@map_group.command()
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@click.argument("value")
@click.option("--replace", is_flag=True, help="If it is full, the oldest value goes.")
def push(service: str, table: str, value: str, replace: bool) -> None:
    """Put a value into a queue, stack or Bloom filter."""
    _ask(service, "map-push", map=table, value=_parsed(value), replace=replace)


@map_group.command()
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@_as_json
def pop(service: str, table: str, as_json: bool) -> None:
    """Take the next value out of a queue or stack."""
    _print_value(_ask(service, "map-pop", map=table, notation=_notation(as_json=as_json)), as_json=as_json)


@map_group.command()
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@click.argument("value", required=False)
@_as_json
def peek(service: str, table: str, value: str | None, as_json: bool) -> None:
    """Show the next value of a queue or stack, or whether a Bloom filter may have seen a value."""
    given = {} if value is None else {"value": _parsed(value)}
    _print_value(_ask(service, "map-peek", map=table, notation=_notation(as_json=as_json), **given), as_json=as_json)


@map_group.command()
@click.argument("service", metavar="NAME")
@click.argument("table", metavar="MAP")
@click.option("--follow", is_flag=True, help="Wait for more.")
def events(service: str, table: str, follow: bool) -> None:
    """Take the records out of a ring buffer or perf_event_array: one line of hex digits each."""
    lost = 0
    while True:
        found = _ask(service, "map-events", map=table)
        for record in found["records"]:
            click.echo(record)
        if found["lost"] != lost:
            lost = found["lost"]
            output.warn(f"{output.counted(lost, 'record')} found no room")
        if not found["records"]:
            if not follow:
                return
            time.sleep(_POLL_SECONDS)


@map_group.command("dump")
@click.argument("service", metavar="NAME")
@click.argument("tables", metavar="[MAP]…", nargs=-1)
@click.option("--zeros", is_flag=True, help="Also elements of arrays that are all zero.")
@_as_json
def dump_maps(service: str, tables: tuple[str, ...], zeros: bool, as_json: bool) -> None:
    """Show all elements of maps; of all maps, if none is named. What --json prints, `uxdp map load` reads."""
    names = tables or [item["name"] for item in _ask(service, "map-list") if item["has_elements"]]
    if as_json:
        output.print_json({name: list(_elements(service, name, zeros=zeros, as_json=True)) for name in names})
        return
    for name in names:
        output.say(f"{name}:")
        for element in _elements(service, name, zeros=zeros, as_json=False):
            output.say(f"  {_line(element)}")


@map_group.command("load")
@click.argument("service", metavar="NAME")
@click.argument("file", type=click.Path(path_type=Path))
@_as_json
def load_maps(service: str, file: Path, as_json: bool) -> None:
    """Set elements from a JSON file: all of them are checked before the first one is set."""
    from ..map_file import MapFileError, parse_document

    try:
        document = parse_document(file.read_bytes(), str(file))
    except OSError as cause:
        raise MapFileError(f"cannot be read: {cause.strerror or cause}", context=str(file)) from cause
    if not isinstance(document, dict):
        raise MapFileError("expected an object of maps by name", context=str(file))
    total = 0
    for check in (True, False):
        total = sum(
            _ask(service, "map-load", elements=piece, source=source, check=check)
            for piece, source in _pieces(document, str(file))
        )
    if as_json:
        output.print_json({"elements": total})
    else:
        output.say(f"{service}: {output.counted(total, 'element')} set")


def _pieces(document: dict[str, Any], source: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the document in pieces that fit a request, and what errors call each."""
    for name, elements in document.items():
        if not isinstance(elements, list | dict):
            yield {name: elements}, source
            continue
        items: list[Any] = elements if isinstance(elements, list) else list(elements.items())
        start, size = 0, 0
        for index, item in enumerate(items):
            size += len(json.dumps(item))
            if size >= _LOAD_BYTES or index == len(items) - 1:
                part = items[start : index + 1]
                where = source if start == 0 else f"{source}, from element {start} on"
                yield {name: part if isinstance(elements, list) else dict(part)}, where
                start, size = index + 1, 0


def _elements(service: str, table: str, *, zeros: bool, as_json: bool) -> Iterator[dict[str, Any]]:
    cursor = None
    for _ in range(_PAGES):
        page = _ask(service, "map-dump", map=table, cursor=cursor, zeros=zeros, notation=_notation(as_json=as_json))
        yield from page["elements"]
        cursor = page["cursor"]
        if cursor is None:
            return


def _ask(service: str, command: str, **fields: Any) -> Any:
    from ..serve.control_socket import ask

    return ask(service, {"command": command, **fields})


def _parsed(text: str) -> Any:
    from ..map_file import parse_text

    return parse_text(text, text)


def _notation(*, as_json: bool) -> str:
    return "network" if as_json else "addresses"


def _print_value(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    elif "seen" in found:
        output.say("perhaps" if found["seen"] else "no")
    else:
        output.say(_line(found))


def _line(element: dict[str, Any]) -> str:
    value = element["values"] if "values" in element else element["value"]
    if "key" not in element:
        return json.dumps(value, ensure_ascii=False)
    return f"{json.dumps(element['key'], ensure_ascii=False)} = {json.dumps(value, ensure_ascii=False)}"
