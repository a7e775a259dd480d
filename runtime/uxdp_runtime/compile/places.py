"""Where in the source something is that native code does not have, by the line information of the object.

Object and IR are one program, so what the IR calls, the object calls too; the same lines are shown when the kernel's
verifier refuses something.
"""

from collections.abc import Iterator

from uxdp_bundle.bpf_object import INSTRUCTION_BYTES, BpfObject
from uxdp_bundle.errors import ObjectError
from uxdp_bundle.helpers import helper_name
from uxdp_bundle.instructions import Code, Function


def place_of(obj: bytes, name: str, function: str = "") -> str:
    """Return where an object first calls a helper or kfunc, or refers to a map or variable: ``nf.c:12, function f``.

    :param obj: the eBPF object
    :param name: such as ``bpf_fib_lookup``; if it is not found, the place is the beginning of the function
    :param function: where to look, "" for everywhere
    """
    try:
        parsed = BpfObject(obj)
        code = Code(parsed)
        functions = [found for group in code.functions.values() for found in group if function in ("", found.name)]
        for found in functions:
            for slot in _uses(parsed, code, found, name):
                return f"{_place(code, found, slot)}, function {found.name}"
        if function and functions:
            return f"{_place(code, functions[0], functions[0].start)}, function {function}"
    except ObjectError:  # a place is for people: without one, they still learn what is missing
        pass
    return f"function {function}" if function else ""


def _place(code: Code, function: Function, slot: int) -> str:
    return code.where(function, slot).removeprefix("./")


def _uses(parsed: BpfObject, code: Code, function: Function, name: str) -> Iterator[int]:
    relocations = parsed.relocations.get(function.section, {})
    used = {offset // INSTRUCTION_BYTES for offset, relocation in relocations.items() if relocation.symbol.name == name}
    for slot, call in code.calls(function).items():
        if (call.helper is not None and helper_name(call.helper) == name) or call.kfunc == name:
            used.add(slot)
    yield from sorted(slot for slot in used if function.start <= slot < function.end)
