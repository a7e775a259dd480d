"""Let 64-bit values take the place of 32-bit ones where they flow: the second half of widening the context.

Loads of the context's pointers were made 64 bits wide (see context), with a trunc for whoever uses the 32 bits. Here
the wide values are carried on through phis, selects and copies, and take the place of the zexts that made pointers.
"""

import re
from typing import Final

from .ir_text import Function, result_of

PHI: Final = re.compile(r"phi (?P<type>ptr|i32) (?P<incoming>.*)$")
INCOMING: Final = re.compile(r"\[ (?P<value>\S+), (?P<block>%\S+) \]")
SELECT: Final = re.compile(r"select i1 (?P<condition>\S+), (?P<type>ptr|i32) (?P<one>\S+), (?:ptr|i32) (?P<other>\S+)$")
COPY: Final = re.compile(r"(?:freeze|bitcast) (?P<type>ptr|i32) (?P<value>\S+?)(?: to ptr)?$")
ZEXT: Final = re.compile(r"zext (?:nneg )?i32 (?P<value>%\S+) to i64$")
PASSTHROUGH: Final = re.compile(r"(?:tail )?call \S+ @llvm\.bpf\.passthrough\.\S+\(i32 [^,]*, (?P<argument>.*)\)")


def propagate(function: Function, wide: dict[str, str]) -> None:
    """Let phis, selects and copies of widened values be wide, and replace their zexts by the wide values."""
    if not wide:
        return
    candidates: dict[str, list[str]] = {}
    for line in function.lines:
        defined = result_of(line)
        if defined is None:
            continue
        name, rest = defined
        if (match := PHI.match(rest)) and match["type"] == "i32":
            candidates[name] = [incoming["value"] for incoming in INCOMING.finditer(match["incoming"])]
        elif (match := SELECT.match(rest)) and match["type"] == "i32":
            candidates[name] = [match["one"], match["other"]]
        elif (match := COPY.match(rest)) and match["type"] == "i32":
            candidates[name] = [match["value"]]
        elif (match := PASSTHROUGH.match(rest)) and match["argument"].startswith("i32 "):
            candidates[name] = [match["argument"].rsplit(" ", 1)[-1]]
    # Optimistic: a loop's phi refers to itself. What has an operand that is not wide drops out until nothing does.
    assumed = set(candidates) | set(wide)
    reached = _reached(candidates, wide)
    while True:
        dropped = {
            name
            for name, operands in candidates.items()
            if name in assumed
            and (
                name not in reached or any(operand not in assumed and operand not in _UNDEFINED for operand in operands)
            )
        }
        if not dropped & assumed:
            break
        assumed -= dropped
    for name in assumed - set(wide):
        wide[name] = suffixed(name, "wide")
    _emit(function, wide, assumed & set(candidates))


_UNDEFINED: Final = frozenset({"undef", "poison"})


def suffixed(name: str, suffix: str) -> str:
    """Return a new local name: %3 -> %"3.wide". Unnamed values are numbered in order, so new ones need names."""
    return f'%"{name[1:].strip(chr(34))}.uxdp.{suffix}"'


def _reached(candidates: dict[str, list[str]], wide: dict[str, str]) -> set[str]:
    """Return the candidates that some widened load flows into."""
    reached: set[str] = set()
    grown = True
    while grown:
        grown = False
        for name, operands in candidates.items():
            if name not in reached and any(operand in wide or operand in reached for operand in operands):
                reached.add(name)
                grown = True
    return reached


def _emit(function: Function, wide: dict[str, str], widened: set[str]) -> None:
    lines: list[str] = []
    pending: list[str] = []  # truncs of wide phis, which must stand behind the last phi of their block
    for line in function.lines:
        defined = result_of(line)
        name, rest = defined if defined is not None else ("", line)
        if pending and not rest.startswith("phi "):
            lines += pending
            pending = []
        if name in widened:
            if match := PHI.match(rest):
                incoming = ", ".join(
                    f"[ {wide.get(found['value'], found['value'])}, {found['block']} ]"
                    for found in INCOMING.finditer(match["incoming"])
                )
                lines.append(f"  {wide[name]} = phi i64 {incoming}")
                pending.append(f"  {name} = trunc i64 {wide[name]} to i32")
                continue
            if match := SELECT.match(rest):
                one, other = (wide.get(match[key], match[key]) for key in ("one", "other"))
                lines.append(f"  {wide[name]} = select i1 {match['condition']}, i64 {one}, i64 {other}")
            elif (match := COPY.match(rest)) or (match := PASSTHROUGH.match(rest)):
                operand = (match.groupdict().get("value") or match["argument"]).rsplit(" ", 1)[-1]
                lines.append(f"  {wide[name]} = add i64 0, {wide.get(operand, operand)}")
            lines.append(f"  {name} = trunc i64 {wide[name]} to i32")
            continue
        if (match := ZEXT.match(rest)) and match["value"] in wide:
            lines.append(f"  {name} = add i64 0, {wide[match['value']]}")
            continue
        lines.append(line)
    function.lines = lines
