"""What stands between a program's call and the native function: types converted as BPF's registers would.

Sources declare helpers and kfuncs with their own types (int, long, pointers to anything). A forwarder has the types of
the call and calls the native function with its own; it inlines away.
"""

import re
from collections.abc import Mapping
from typing import Final

from .ir_text import split_arguments

SIGNATURE: Final = re.compile(r"^(?P<result>void|ptr|i\d+) \((?P<parameters>.*)\)$")


def constant(argument: str) -> str:
    """Return a constant expression argument without its type and attributes: ``getelementptr (...)``."""
    match = re.search(r"(?:getelementptr|inttoptr|ptrtoint|bitcast|trunc|zext|add|sub)\b[^()]*\(.*\)$", argument)
    return match[0] if match is not None else argument.rsplit(" ", 1)[-1]


def declaration(name: str, native: Mapping[str, str]) -> str:
    """Return the line that declares a native function."""
    signature = SIGNATURE.match(native[name])
    assert signature is not None  # noqa: S101  # native's types were printed by LLVM
    return f"declare {signature['result']} @{name}({signature['parameters']})"


def operands_of(arguments: str) -> list[str]:
    """Return the operands of a call, ``ptr %v1``, from what stands between its parentheses."""
    return [
        f"{piece.split(' ', 1)[0]} {constant(piece) if piece.endswith(')') else piece.rsplit(' ', 1)[-1]}"
        for piece in split_arguments(arguments)
    ]


def forwarder(name: str, target: str, signature: str, result: str, arguments: tuple[str, ...]) -> str:
    """Return a function ``name`` that is called by the types of a call, and calls ``target`` by its own."""
    match = SIGNATURE.match(signature)
    assert match is not None  # noqa: S101  # native's types were printed by LLVM
    parameters = split_arguments(match["parameters"])
    lines: list[str] = []
    passed: list[str] = []
    for number, parameter in enumerate(parameters):
        if number >= len(arguments):
            # A call with fewer arguments than the helper has leaves the others to whatever is in the registers.
            passed.append(f"{parameter} {'null' if parameter == 'ptr' else '0'}")
            continue
        value, code = converted(f"%a{number}", arguments[number], parameter)
        lines += code
        passed.append(f"{parameter} {value}")
    call = f"call {match['result']} @{target}({', '.join(passed)})"
    if match["result"] == "void" or result == "void":
        lines.append(f"  {call}" if match["result"] == "void" else f"  %ignored = {call}")
        lines.append("  ret void" if result == "void" else f"  ret {result} {'null' if result == 'ptr' else '0'}")
    else:
        lines.append(f"  %r = {call}")
        value, code = converted("%r", match["result"], result)
        lines += [*code, f"  ret {result} {value}"]
    heads = ", ".join(f"{kind} %a{number}" for number, kind in enumerate(arguments))
    return f'define internal {result} @"{name}"({heads}) alwaysinline {{\n' + "\n".join(lines) + "\n}"


def converted(value: str, have: str, want: str) -> tuple[str, list[str]]:
    """Return a value of type ``want`` and the instructions that make it, as BPF registers convert."""
    if have == want:
        return value, []
    name = value[1:].strip('"')
    made = f'%"{name}.{want}"'
    if have == "ptr":
        address = f'%"{name}.address"'
        final, code = converted(address, "i64", want)
        return final, [f"  {address} = ptrtoint ptr {value} to i64", *code]
    if want == "ptr":
        wide, code = converted(value, have, "i64")
        return made, [*code, f"  {made} = inttoptr i64 {wide} to ptr"]
    operation = "zext" if int(have[1:]) < int(want[1:]) else "trunc"
    return made, [f"  {made} = {operation} {have} {value} to {want}"]
