"""Give memory natively the meaning that the object's code has on BPF.

- A stack slot that nothing was written to holds whatever was on the stack, which privileged programs may read. To LLVM
  that is undefined: two reads may differ, and a bounds check of one says nothing about the other. Natively all slots
  begin as zeros; where a program writes before it reads, the zeros are optimised away.
- Slots live as long as their function; LLVM itself finds those that can share memory.
- Blocks that overlap are copied as if they did not.

That LLVM takes address 0 for one that nothing is at needs no treatment: no verified program uses such a pointer,
and null_pointer_is_valid would cost a tenth of the speed.
"""

import re
from typing import Final

from uxdp_bundle.ir_syntax import NAME, split_arguments

from .ir_text import Function, Module
from .limits import named_types, slot_bytes

_SLOT: Final = re.compile(rf"^  (?P<name>%{NAME}) = alloca (?P<rest>.*)$")
_COUNT: Final = re.compile(r"i\d+ \d+")
_COPY: Final = re.compile(r"call void @llvm\.memcpy\.(?:inline\.)?p0\.p0\.i(?P<width>32|64)\(")
_LIFETIME: Final = re.compile(r"^  call void @llvm\.lifetime\.(?:start|end)\.")
_MEMSET: Final = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
_MEMMOVE: Final = "declare void @llvm.memmove.p0.p0.i{}(ptr, ptr, i{}, i1)"


def settle_memory(module: Module) -> None:
    """Rewrite the functions of a module that was defined (see uxdp_bundle.defined_ir)."""
    types = named_types(module)
    declared: set[str] = set()
    for function in module.functions:
        lines: list[str] = []
        for line in function.lines:
            if "@llvm.lifetime." in line and _LIFETIME.match(line):
                continue
            if "@llvm.memcpy." in line and (copy := _COPY.search(line)):
                line = line[: copy.start()] + f"call void @llvm.memmove.p0.p0.i{copy['width']}(" + line[copy.end() :]
                declared.add(_MEMMOVE.format(copy["width"], copy["width"]))
            lines.append(line)
            slot = _SLOT.match(line) if " = alloca " in line else None
            if slot is not None:
                lines.append(_cleared(slot["name"], slot["rest"], types))
                declared.add(_MEMSET)
        function.lines = lines
    names = {declaration.partition("@")[2].partition("(")[0] for declaration in declared}
    module.items = [*(item for item in module.items if not _declares(item, names)), *sorted(declared)]


def _cleared(name: str, rest: str, types: dict[str, str]) -> str:
    kind, *options = split_arguments(rest)
    if kind[0] in "pi" and not any(_COUNT.fullmatch(option) for option in options):
        return f"  store {kind} zeroinitializer, ptr {name}, align 1"
    return f"  call void @llvm.memset.p0.i64(ptr {name}, i8 0, i64 {slot_bytes(rest, types)}, i1 false)"


def _declares(item: str | Function, names: set[str]) -> bool:
    return isinstance(item, str) and item.startswith("declare ") and any(f" @{name}(" in item for name in names)
