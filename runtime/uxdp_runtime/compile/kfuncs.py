"""Turn calls of kfuncs in IR into calls of native functions.

A kfunc is an external function in the section ``.ksyms``. Its native implementation is a C function
``uxdp_kfunc_NAME``, where NAME is the kernel's without ``bpf_``; calls go through forwarders, as those of helpers do.
Only what is declared so is a kfunc: a function that a bundle defines may be called as it likes.

A program may do without a *weak* kfunc: it compares the address with NULL, and libbpf resolves that when it loads the
object. What it found is in ``values``. A kfunc that this kernel has not got, the program does without natively, too;
one that the kernel has and native code has not is refused, for the program would call it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from uxdp_bundle.ir_syntax import NAME

from .calls import UnsupportedCallError
from .forwarders import declaration, forwarder, operands_of
from .ir_text import Function, Module, closing
from .unsupported_kfuncs import reason_of

PREFIX: Final = "uxdp_kfunc_"
# What is called instead where the map, the first operand, may be an inner one.
_OF_INNER_MAPS: Final = {"bpf_map_sum_elem_count": "uxdp_inner_map_sum_elem_count"}
# In ``values``: whether this kernel has a weak kfunc, 1 or 0.
PRESENT: Final = "kfunc:"
_DECLARED: Final = re.compile(rf'^declare (?P<linkage>.*?)\S+ @(?P<name>{NAME})\(.*\).* section "\.ksyms"')
_CALL: Final = re.compile(
    rf"^(?P<lead>.*?)(?:(?:tail|musttail|notail) )?call (?P<type>void|ptr|i\d+) (?:\([^()]*\) )?@(?P<name>{NAME})\("
)
_COMPARED: Final = re.compile(rf"(?<= = icmp )(?P<how>eq|ne) ptr (?P<one>null|@{NAME}), (?P<other>null|@{NAME})$")


@dataclass(slots=True)
class _Forwarders:
    native: Mapping[str, str]
    has_inner: bool
    targets: set[str] = field(default_factory=set)
    texts: dict[tuple[str, str, tuple[str, ...], str], tuple[str, str]] = field(default_factory=dict)

    def name_for(self, kfunc: str, result: str, operands: list[str], *, present: bool, where: str) -> str:
        arguments = tuple(operand.split(" ", 1)[0] for operand in operands)
        target = native_name(kfunc) if present else ""
        if self.has_inner and target and operands and not operands[0].startswith("ptr @"):
            target = _OF_INNER_MAPS.get(kfunc, target)
        key = (kfunc, result, arguments, target)
        if key not in self.texts:
            name = f"uxdp.call.{kfunc.removeprefix('bpf_')}.k{len(self.texts)}"
            if not present:
                # libbpf put something in the call's place that no verified program reaches.
                value = "void" if result == "void" else f"{result} {'null' if result == 'ptr' else '0'}"
                text = f'define internal {result} @"{name}"({", ".join(arguments)}) {{\n  ret {value}\n}}'
            elif target not in self.native:
                raise UnsupportedCallError(kfunc, reason_of(kfunc), where)
            else:
                text = forwarder(name, target, self.native[target], result, arguments)
                self.targets.add(target)
            self.texts[key] = (name, text)
        return self.texts[key][0]


def native_name(kfunc: str) -> str:
    """Return the name of the C function that stands for a kfunc."""
    return PREFIX + kfunc.removeprefix("bpf_")


def weak_kfuncs(module: Module) -> list[str]:
    """Return the names of the kfuncs that a program can do without."""
    return [name for name, weak in _declared(module).items() if weak]


def rewrite_kfuncs(
    module: Module, native: Mapping[str, str], values: Mapping[str, int], *, has_inner: bool = False
) -> frozenset[str]:
    """Replace every call of a kfunc in ``module``, and every comparison of a weak one with NULL.

    :param native: the native functions' types by name, such as ``{"uxdp_kfunc_iter_num_next": "ptr (ptr)"}``
    :param values: what libbpf found, see PRESENT; a weak kfunc that is not in it is taken to be there
    :param has_inner: whether pointers to maps can be of inner ones
    :return: the native functions that are called now
    :raises UnsupportedCallError: a kfunc without native implementation
    """
    declared = _declared(module)
    if not declared:
        return frozenset()
    present = {name: not weak or bool(values.get(PRESENT + name, True)) for name, weak in declared.items()}
    forwarders = _Forwarders(native, has_inner)
    for function in module.functions:
        function.lines = [_rewritten(line, function, present, forwarders) for line in function.lines]
    text = "\n".join(line for function in module.functions for line in function.lines)
    # What else refers to a kfunc keeps its declaration, and is refused for that.
    module.items = [
        item
        for item in module.items
        if isinstance(item, Function)
        or (match := _DECLARED.match(item)) is None
        or re.search(rf"@{re.escape(match['name'])}(?![-\w$.])", text)
    ]
    module.items += [text for _name, text in forwarders.texts.values()]
    module.items += [declaration(target, native) for target in sorted(forwarders.targets)]
    return frozenset(forwarders.targets)


def _declared(module: Module) -> dict[str, bool]:
    """Return the kfuncs that a module declares, and whether it can do without."""
    matches = (_DECLARED.match(item) for item in module.items if isinstance(item, str) and item.startswith("declare "))
    return {match["name"]: "extern_weak" in match["linkage"] for match in matches if match is not None}


def _rewritten(line: str, function: Function, present: Mapping[str, bool], forwarders: _Forwarders) -> str:
    if "@" not in line:
        return line
    if compared := _COMPARED.search(line):

        def address(operand: str) -> str:
            known = present.get(operand.removeprefix("@"))
            return operand if known is None else "inttoptr (i64 1 to ptr)" if known else "null"

        one, other = address(compared["one"]), address(compared["other"])
        return f"{line[: compared.start()]}{compared['how']} ptr {one}, {other}"
    match = _CALL.match(line)
    if match is None or match["name"] not in present:
        return line
    start = match.end() - 1
    operands = operands_of(line[start + 1 : closing(line, start)])
    kfunc, result = match["name"], match["type"]
    name = forwarders.name_for(kfunc, result, operands, present=present[kfunc], where=function.name)
    return f'{match["lead"]}call {result} @"{name}"({", ".join(operands)})'
