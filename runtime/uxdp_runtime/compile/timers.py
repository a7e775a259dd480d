"""Let native code call a program's timer callbacks: by a number, which outlives the code that it was compiled with.

bpf_timer_set_callback is given the number instead of the function; the compiler adds ``uxdp_timer_callback``, which
calls the function of a number, and ``uxdp_timer_map``, which gives the map of one (native/timers.h).
"""

import re
from collections.abc import Mapping
from typing import Final

from uxdp_bundle.ir_syntax import NAME

from .calls import UnsupportedCallError
from .definitions import NativeMap
from .ir_text import Function, Module

_SET: Final = re.compile(
    rf"(?P<head>call \S+ (?:\([^()]*\) )?inttoptr \(i64 170 to ptr\)\(ptr \S+, )ptr (?P<callback>@{NAME}|%{NAME})\)"
)
_INIT: Final = re.compile(
    rf"call \S+ (?:\([^()]*\) )?inttoptr \(i64 169 to ptr\)\(ptr \S+, ptr (?P<map>@{NAME}|%{NAME}), "
)
_SET_CALLBACK, _INITIALISE = "bpf_timer_set_callback", "bpf_timer_init"


def prepare_timers(module: Module, maps: Mapping[str, NativeMap]) -> bool:
    """Number the callbacks of a module; return whether it has timers.

    :param maps: the maps by their names in the module
    :raises UnsupportedCallError: a callback or map that is not named where the call is
    """
    callbacks: dict[str, int] = {}
    used: dict[str, int] = {}
    functions = {function.name: function for function in module.functions}
    for function in module.functions:
        for index, line in enumerate(function.lines):
            if "(i64 169 to ptr)(" in line:
                init = _INIT.search(line)
                name = init["map"].removeprefix("@").strip('"') if init is not None else ""
                if name not in maps:
                    raise UnsupportedCallError(_INITIALISE, "of a map that is not declared", function.name)
                used[name] = maps[name].number
            elif "(i64 170 to ptr)(" in line:
                match = _SET.search(line)
                name = match["callback"].removeprefix("@") if match is not None else ""
                if match is None or name not in functions:
                    raise UnsupportedCallError(_SET_CALLBACK, "a callback that is no function", function.name)
                number = callbacks.setdefault(name, len(callbacks) + 1)
                place = match.start("callback") - len("ptr ")
                function.lines[index] = f"{line[:place]}i64 {number}{line[match.end('callback') :]}"
    if not used and not callbacks:
        return False
    module.items += [_caller([functions[name] for name in callbacks]), _finder(used)]
    return True


def _caller(callbacks: list[Function]) -> str:
    cases = "\n".join(f"    i32 {number}, label %c{number}" for number in range(1, len(callbacks) + 1))
    blocks: list[str] = []
    for number, function in enumerate(callbacks, start=1):
        if function.parameter_types != ["ptr"] * len(function.parameter_types) or len(function.parameter_types) > 3:
            raise UnsupportedCallError(_SET_CALLBACK, "a callback whose arguments are no pointers", function.name)
        arguments = ", ".join(("ptr %map", "ptr %key", "ptr %value")[: len(function.parameter_types)])
        blocks.append(
            f"c{number}:\n  {f'%r{number} = ' if function.result_type != 'void' else ''}"
            f"call {function.result_type} @{function.name}({arguments})\n  ret i64 0"
        )
    return (
        "define i64 @uxdp_timer_callback(i32 %callback, ptr %map, ptr %key, ptr %value) {\n"
        f"  switch i32 %callback, label %none [\n{cases}\n  ]\n" + "\n".join(blocks) + "\nnone:\n  ret i64 0\n}"
    )


def _finder(used: Mapping[str, int]) -> str:
    cases = "\n".join(f"    i32 {number}, label %m{number}" for number in used.values())
    blocks = "\n".join(f'm{number}:\n  ret ptr @"{name}"' for name, number in used.items())
    return (
        "define ptr @uxdp_timer_map(i32 %number) {\n"
        f"  switch i32 %number, label %none [\n{cases}\n  ]\n{blocks}\nnone:\n  ret ptr null\n}}"
    )
