"""Let a large program's operations on one map be one piece of code, not one for each call.

An operation on a map is inlined where it is called: with the map's definition constant it folds to little, and what
follows is optimised with it. Of a program that looks up in a table in forty places this makes forty copies, which take
seconds to compile and do not fit the CPU's caches. So from some number of calls on, there is one function for the map
and the operation, in which the definition is as constant.

The text that this works on is the compiler's own, after looking ahead: helper calls are ``@"uxdp.call.NAME.N"``.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from .definitions import NativeMap
from .ir_text import Module, split_arguments

# So many calls of one operation on one map are inlined; few programs have more.
MAX_INLINED: Final = 4
_OPERATIONS: Final = frozenset({"map_lookup_elem", "map_update_elem", "map_delete_elem", "map_lookup_percpu_elem"})
_CALL: Final = re.compile(
    r'^(?P<lead>  (?:\S+ = )?)call (?P<type>\S+) @"(?P<forwarder>uxdp\.call\.(?P<helper>\w+)\.\d+)"'
    r'\(ptr (?P<map>@(?:"[^"]*"|[-\w$.]+))(?P<others>(?:, .*)?)\)$'
)
# A lookup in one of these is an addition: smaller than a call.
_ARRAYS: Final = frozenset({"array", "percpu_array"})


def share_calls(module: Module, maps: Mapping[str, NativeMap]) -> None:
    """Replace calls of one operation on one map, if there are many, by calls of one function.

    :param maps: the maps by their names in the module
    """
    calls = [
        match
        for function in module.functions
        for line in function.lines
        if "uxdp.call.map_" in line and (match := _shareable(line, maps)) is not None
    ]
    counts = Counter(map(_key, calls))
    shared = {key: f"uxdp.shared.{number}" for number, (key, count) in enumerate(counts.items()) if count > MAX_INLINED}
    if not shared:
        return
    texts: dict[str, str] = {}
    for function in module.functions:
        lines = []
        for line in function.lines:
            match = _shareable(line, maps) if "uxdp.call.map_" in line else None
            name = shared.get(_key(match)) if match is not None else None
            if match is not None and name is not None:
                others = split_arguments(match["others"].removeprefix(", "))
                if name not in texts:
                    texts[name] = _function(name, match, [operand.split(" ", 1)[0] for operand in others])
                line = f'{match["lead"]}call {match["type"]} @"{name}"({", ".join(others)})'
            lines.append(line)
        function.lines = lines
    module.items += texts.values()


def _shareable(line: str, maps: Mapping[str, NativeMap]) -> re.Match[str] | None:
    match = _CALL.match(line)
    if match is None or match["helper"] not in _OPERATIONS:
        return None
    native = maps.get(match["map"][1:].strip('"'))
    if native is None or (match["helper"] == "map_lookup_elem" and native.definition.type in _ARRAYS):
        return None
    return match


def _key(match: re.Match[str]) -> tuple[str, str]:
    return match["forwarder"], match["map"]


def _function(name: str, match: re.Match[str], kinds: list[str]) -> str:
    heads = ", ".join(f"{kind} %a{number}" for number, kind in enumerate(kinds))
    passed = "".join(f", {kind} %a{number}" for number, kind in enumerate(kinds))
    call = f'call {match["type"]} @"{match["forwarder"]}"(ptr {match["map"]}{passed})'
    lines = [f"  {call}", "  ret void"] if match["type"] == "void" else [f"  %r = {call}", f"  ret {match['type']} %r"]
    return f'define internal {match["type"]} @"{name}"({heads}) noinline {{\n' + "\n".join(lines) + "\n}"
