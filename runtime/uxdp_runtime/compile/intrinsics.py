"""Replace what only the BPF backend understands by ordinary IR, and relax what only BPF guarantees."""

import re
from typing import Final

from .ir_text import Function, Module, split_arguments

_PASSTHROUGH: Final = re.compile(
    r"^  (?P<name>%\S+) = (?:tail )?call (?:\w+ )*?(?P<type>ptr|i\d+) @llvm\.bpf\.passthrough\."
    r"[^(]*\((?P<arguments>.*)\).*$"
)
_COMPARE: Final = re.compile(
    r"^  (?P<name>%\S+) = (?:tail )?call (?:\w+ )*?i1 @llvm\.bpf\.compare\.[^(]*\((?P<arguments>.*)\).*$"
)
# llvm::CmpInst::Predicate, which the first argument of llvm.bpf.compare is.
_PREDICATES: Final = dict(enumerate(("eq", "ne", "ugt", "uge", "ult", "ule", "sgt", "sge", "slt", "sle"), start=32))
_DECLARED: Final = re.compile(r"^declare .*@llvm\.bpf\.")
_MEMORY: Final = re.compile(r"^  (?:%\S+ = load |store )(?!atomic)")
_ALIGNED: Final = re.compile(r", align \d+")
_BLOCK_COPY: Final = re.compile(r"@llvm\.mem(?:cpy|move|set)\.")
_ALIGNED_ARGUMENT: Final = re.compile(r" align \d+")
_ATTRIBUTE_GROUP: Final = re.compile(r"^attributes #\d+ = ")
_TARGET_ATTRIBUTES: Final = re.compile(
    r' "(?:target-cpu|target-features|tune-cpu|frame-pointer|no-jump-tables)"="[^"]*"'
)


def lower_intrinsics(module: Module) -> None:
    """Replace llvm.bpf.passthrough by its argument and llvm.bpf.compare by its comparison."""
    for function in module.functions:
        lines = []
        for line in function.lines:
            if "llvm.bpf." not in line:
                lines.append(line)
            elif match := _PASSTHROUGH.match(line):
                value = split_arguments(match["arguments"])[1].rsplit(" ", 1)[-1]
                if match["type"] == "ptr":
                    lines.append(f"  {match['name']} = getelementptr i8, ptr {value}, i64 0")
                else:
                    lines.append(f"  {match['name']} = add {match['type']} {value}, 0")
            elif match := _COMPARE.match(line):
                predicate, one, other = split_arguments(match["arguments"])
                word = _PREDICATES[int(predicate.rsplit(" ", 1)[-1])]
                left, right = one.rsplit(" ", 1)[-1], other.rsplit(" ", 1)[-1]
                lines.append(f"  {match['name']} = icmp {word} {one.split(' ')[0]} {left}, {right}")

            else:
                lines.append(line)
        function.lines = lines
    module.items = [item for item in module.items if not isinstance(item, str) or not _DECLARED.match(item)]


def relax(module: Module, triple: str, datalayout: str, *, aligned: bool = False) -> None:
    """Move a module to another target.

    BPF sources claim alignments that frames do not have: an IP header behind an Ethernet header is at 2 modulo 4. On
    BPF that is of no consequence, for the kernel's JIT makes plain loads; natively LLVM may rely on it. So every access
    but atomic ones is taken as unaligned, unless the module is ``aligned`` as its accesses say.
    """
    for function in () if aligned else module.functions:
        function.lines = [_relaxed(line) for line in function.lines]
    items: list[str | Function] = []
    for item in module.items:
        if isinstance(item, str):
            if item.startswith("target triple"):
                item = f'target triple = "{triple}"'
            elif item.startswith("target datalayout"):
                item = f'target datalayout = "{datalayout}"'
            elif _ATTRIBUTE_GROUP.match(item):
                item = _TARGET_ATTRIBUTES.sub("", item)
        items.append(item)
    module.items = items


def _relaxed(line: str) -> str:
    if _MEMORY.match(line):
        return _ALIGNED.sub(", align 1", line)
    if _BLOCK_COPY.search(line):
        return _ALIGNED_ARGUMENT.sub(" align 1", line)
    return line
