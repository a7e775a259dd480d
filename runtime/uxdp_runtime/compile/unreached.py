"""Drop functions that no program can reach.

libbpf loads a subprogram with a program that calls it; one that nobody calls the kernel never sees. Natively it would
be dropped, too, but only by the optimiser, and what is known of a parameter is known from calls: without one, a context
is taken for any pointer.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from uxdp_bundle.ir_syntax import NAME

from .ir_text import Function, Module

_REFERENCE: Final = re.compile(rf"@({NAME})")
_LISTS: Final = ("@llvm.used ", "@llvm.compiler.used ")


def drop_unreached(module: Module, programs: Iterable[str]) -> None:
    """Remove the functions that neither a program nor global data leads to.

    :param programs: names of the programs
    """
    functions = {function.name: function for function in module.functions}
    named = [name for name in programs if name in functions]
    for item in module.items:
        if isinstance(item, str) and item.startswith("@") and not item.startswith(_LISTS):
            named += functions.keys() & set(_REFERENCE.findall(item))
    kept = reached(functions, named)
    module.items = [item for item in module.items if not isinstance(item, Function) or item.name in kept]


def reached(functions: Mapping[str, Function], names: Iterable[str]) -> set[str]:
    """Return the names of the functions that some of them lead to, with theirs."""
    work = list(names)
    found: set[str] = set()
    while work:
        name = work.pop()
        if name not in found:
            found.add(name)
            for line in functions[name].lines:
                if "@" in line:
                    work += functions.keys() & set(_REFERENCE.findall(line))
    return found
