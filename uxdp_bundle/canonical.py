"""Strict JSON: the one reader and the one writer that everything signed passes through.

Two JSON readers that disagree about the same bytes (duplicate keys, NaN, 1e400, lone surrogates) are a way around a
signature. So: UTF-8 without a byte-order mark, no duplicate keys, integers only, bounded size and depth. The canonical
form is what ``dumps`` writes: keys sorted by code point, no white space, no escapes but those that JSON demands.
"""

import json
from typing import Any, NoReturn

from .errors import BundleFormatError, UxdpError

MAX_DEPTH = 16
# Everything in a manifest is an offset, a size, a count or the default of a parameter: all fit 64 bits.
MIN_INTEGER = -(1 << 63)
MAX_INTEGER = (1 << 64) - 1

JsonObject = dict[str, Any]


def dumps(value: JsonObject) -> bytes:
    """Return the canonical form of ``value``: UTF-8, sorted keys, no white space, no trailing newline."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def loads(data: bytes, *, what: str, max_bytes: int, error: type[UxdpError] = BundleFormatError) -> JsonObject:
    """Parse one JSON object strictly; key order and white space are free.

    :param data: the bytes of one JSON object
    :param what: what the bytes are, for messages and as the error's context
    :param max_bytes: limit, checked before anything is parsed
    :param error: the type that is raised for every defect
    """

    def refuse(message: str) -> NoReturn:
        raise error(message, context=what)

    if len(data) > max_bytes:
        refuse(f"{len(data)} bytes of JSON, at most {max_bytes} allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(f"not UTF-8 at byte {cause.start}", context=what) from cause
    if _depth(text) > MAX_DEPTH:
        refuse(f"JSON nested deeper than {MAX_DEPTH} levels")

    def unique(pairs: list[tuple[str, Any]]) -> JsonObject:
        result: JsonObject = {}
        for key, value in pairs:
            if key in result:
                refuse(f"key {key!r:.80} stands twice in one JSON object")
            result[key] = value
        return result

    def integer(digits: str) -> int:
        if len(digits) > len(str(MAX_INTEGER)) or not MIN_INTEGER <= int(digits) <= MAX_INTEGER:
            refuse(f"the integer {digits[:24]} does not fit 64 bits")
        return int(digits)

    def no_number(literal: str) -> NoReturn:
        refuse(f"the number {literal[:24]} is no integer")

    try:
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=no_number,
            parse_constant=no_number,
        )
    except json.JSONDecodeError as cause:
        raise error(f"not JSON: {cause.msg} at character {cause.pos}", context=what) from cause
    if not isinstance(value, dict):
        refuse(f"a JSON {type(value).__name__}, expected an object")
    try:
        dumps(value)  # a lone surrogate ("\ud800") parses, but has no UTF-8 form
    except UnicodeEncodeError as cause:
        raise error("a string holds a lone surrogate, which has no UTF-8 form", context=what) from cause
    return value


def loads_canonical(data: bytes, *, what: str, max_bytes: int) -> JsonObject:
    """Parse one JSON object and require that the bytes are its canonical form."""
    value = loads(data, what=what, max_bytes=max_bytes)
    if dumps(value) != data:
        raise BundleFormatError("not in canonical form (sorted keys, no white space, shortest escapes)", context=what)
    return value


def _depth(text: str) -> int:
    """Return the deepest nesting of brackets outside of strings, before a recursive parser sees the text."""
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            if depth > deepest:
                deepest = depth
        elif character in "]}":
            depth -= 1
    return deepest
