"""A case: what the maps are filled with, and the steps that a program then takes; in memory and as a file.

The file is JSON, all bytes in hex::

    {
      "maps": [{"map": "vips", "key": "0a000001", "value": "01000000"}],
      "steps": [
        {"frame": "ffffffffffff…", "metadata": "01020304", "description": "ipv4 tcp syn"},
        {"map": "vips", "key": "0a000001", "value": "02000000", "flags": 2},
        {"map": "vips", "key": "0a000001", "value": null}
      ]
    }

A value of null deletes. What is left out is empty, or 0.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bpf.inner_maps import split_inner_name
from ..errors import ParameterError
from ..frames.generate import Frame
from ..map_file import Contents
from ..steps import MapChange, Step


@dataclass(frozen=True, slots=True)
class Element:
    """An element that a map begins with."""

    map: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """What the maps begin with, and the steps in their order."""

    elements: tuple[Element, ...]
    steps: tuple[Step, ...]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The steps that are frames."""
        return tuple(step for step in self.steps if isinstance(step, Frame))

    @property
    def changes(self) -> tuple[MapChange, ...]:
        """The steps that are changes of maps."""
        return tuple(step for step in self.steps if isinstance(step, MapChange))

    @property
    def contents(self) -> Contents:
        """The elements by map."""
        contents: Contents = {}
        for element in self.elements:
            contents.setdefault(element.map, []).append((element.key, element.value))
        return contents


def elements_of(contents: Contents) -> tuple[Element, ...]:
    """Return the elements that maps are filled with, in their order."""
    return tuple(Element(name, key, value) for name, items in contents.items() for key, value in items)


def case_json(case: Case) -> dict[str, Any]:
    """Return a case as JSON-able values."""
    return {
        "maps": [{"map": one.map, "key": one.key.hex(), "value": one.value.hex()} for one in case.elements],
        "steps": [encoded(step) for step in case.steps],
    }


def write_case(path: str | Path, case: Case) -> None:
    """Write a file.

    :raises ParameterError: it cannot be written
    """
    write_text(path, json.dumps(case_json(case), indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text.

    :raises ParameterError: it cannot be written
    """
    try:
        Path(path).write_text(text)
    except OSError as cause:
        raise ParameterError(f"cannot be written: {cause.strerror or cause}", context=str(path)) from cause


def read_case(path: str | Path, maps: Iterable[str]) -> Case:
    """Read a file.

    :param maps: the names of the maps and sections of global data that there are
    :raises ParameterError: it cannot be read, is not of this form, or names another map
    """
    try:
        text = Path(path).read_bytes()
    except OSError as cause:
        raise ParameterError(f"cannot be read: {cause.strerror or cause}", context=str(path)) from cause
    try:
        document = json.loads(text)
        elements = tuple(
            Element(str(one["map"]), bytes.fromhex(one["key"]), bytes.fromhex(one["value"]))
            for one in document.get("maps", ())
        )
        steps = tuple(decoded(one) for one in document["steps"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as cause:
        raise ParameterError(
            f"is no case: {type(cause).__name__}: {cause}", context=str(path), remedy="--save-steps writes such files"
        ) from cause
    case = Case(elements, steps)
    named = {one.map for one in elements} | {one.map for one in case.changes}
    parts = {name: split_inner_name(name) for name in named}
    if unknown := sorted({name if part is None else part[0] for name, part in parts.items()} - set(maps)):
        raise ParameterError(f"there is no map {unknown[0]!r}", context=str(path))
    return case


def encoded(step: Step) -> dict[str, Any]:
    """Return a step as JSON-able values."""
    if isinstance(step, Frame):
        item: dict[str, Any] = {"frame": step.data.hex()}
        if step.metadata:
            item["metadata"] = step.metadata.hex()
        if step.description:
            item["description"] = step.description
        return item
    item = {"map": step.map, "key": step.key.hex(), "value": None if step.value is None else step.value.hex()}
    if step.flags:
        item["flags"] = step.flags
    return item


def decoded(item: dict[str, Any]) -> Step:
    """Return a step from what ``encoded`` made of it.

    :raises ValueError, KeyError, TypeError: it is none
    """
    if "frame" in item:
        return Frame(
            bytes.fromhex(item["frame"]),
            metadata=bytes.fromhex(item.get("metadata", "")),
            description=str(item.get("description", "")),
        )
    value = item["value"]
    flags = int(item.get("flags", 0))
    if not 0 <= flags < 1 << 64:
        raise ValueError(f"flags {flags}")
    return MapChange(
        str(item["map"]), bytes.fromhex(item["key"]), None if value is None else bytes.fromhex(value), flags
    )


def summary(case: Case) -> str:
    """Say in a few words how much it is."""
    frames, changes = len(case.frames), len(case.changes)
    parts = [f"{frames} frame{'s' * (frames != 1)}"]
    if frames == 1:
        parts[0] += f" of {len(case.frames[0].data)} bytes"
    if changes:
        parts.append(f"{changes} change{'s' * (changes != 1)} of maps")
    if case.elements:
        parts.append(f"{len(case.elements)} map element{'s' * (len(case.elements) != 1)}")
    return ", ".join(parts)
