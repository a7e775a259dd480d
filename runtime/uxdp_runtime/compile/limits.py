"""What no verified program does, and what would break the process that runs it: recursion, and stack without end.

The verifier follows every call and refuses a function that is in its own way, and a program whose frames have more than
512 bytes together (MAX_BPF_STACK). Natively nothing would stop either, so IR that has them is refused, verified or not.
"""

import re
from typing import Final

from uxdp_bundle.ir_promises import UndefinedIrError
from uxdp_bundle.ir_syntax import NAME, split_arguments, type_bytes

from .ir_text import Module

# Slots that are not used at the same time share a BPF frame, so that they may be more than its 512 bytes together.
MAX_SLOT_BYTES: Final = 64 * 512
_TYPE: Final = re.compile(rf"^(?P<name>%{NAME}) = type (?P<body>.*)$")
_SLOT: Final = re.compile(rf"^  (?P<name>%{NAME}) = alloca (?P<rest>.*)$")
_SET_TIMER_CALLBACK: Final = "inttoptr (i64 170 to ptr)("
_COUNT: Final = re.compile(r"i\d+ (\S+)")
_REFERENCE: Final = re.compile(rf"@({NAME})")


def check_limits(module: Module) -> None:
    """Refuse recursion and large stacks.

    :raises UndefinedIrError: kind ``recursion`` or ``stack``
    """
    types = named_types(module)
    names = {function.name for function in module.functions}
    references: dict[str, set[str]] = {}
    for function in module.functions:
        references[function.name] = set()
        total = 0
        for line in function.lines:
            # A callback of a timer is called when nothing else runs.
            if "@" in line and _SET_TIMER_CALLBACK not in line:
                references[function.name].update(names.intersection(_REFERENCE.findall(line)))
            if " = alloca " in line and (slot := _SLOT.match(line)):
                total += slot_bytes(slot["rest"], types)
        if total > MAX_SLOT_BYTES:
            raise UndefinedIrError(
                "stack", f"function {function.name}: {total} bytes of stack, expected at most {MAX_SLOT_BYTES}"
            )
    _check_acyclic(references)


def named_types(module: Module) -> dict[str, str]:
    """Return the bodies of a module's named types."""
    matches = (_TYPE.match(item) for item in module.items if isinstance(item, str) and item.startswith("%"))
    return {match["name"]: match["body"] for match in matches if match is not None}


def slot_bytes(rest: str, types: dict[str, str]) -> int:
    """Return the bytes of a stack slot, from what stands behind ``alloca``.

    :raises UndefinedIrError: a size that is not constant
    """
    kind, *options = split_arguments(rest)
    count = _COUNT.fullmatch(options[0]) if options else None
    if count is not None and not count[1].isdecimal():
        raise UndefinedIrError("stack", f"a stack slot of a size that is not constant: alloca {rest[:60]}")
    return type_bytes(kind, types)[0] * (int(count[1]) if count is not None else 1)


def _check_acyclic(references: dict[str, set[str]]) -> None:
    done: set[str] = set()
    for start in references:
        path: list[str] = []
        on_path: set[str] = set()
        work = [(start, False)]
        while work:
            name, is_left = work.pop()
            if is_left:
                on_path.discard(name)
                done.add(name)
                path.pop()
            elif name in on_path:
                loop = " → ".join((*path[path.index(name) :], name))
                raise UndefinedIrError("recursion", f"function {name} gets back to itself: {loop[:200]}")
            elif name not in done:
                path.append(name)
                on_path.add(name)
                work.append((name, True))
                work += [(callee, False) for callee in sorted(references[name])]
