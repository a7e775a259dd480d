"""Numbers that only the kernel knows which a program is loaded into: configuration, ids of types, addresses of symbols.

To code that is compiled for this kernel the first two are constants. In code that is compiled ahead of time each is an
undefined symbol, whose address is the number; addresses of the kernel's symbols always are. Whoever has both the code
and the numbers defines the symbols, see ``define``. They are weak, so that LLVM takes no address for one that is not 0.

Of kernel symbols (``__ksym``) native code has the address as a number, or whether there is such a symbol; what is at
the address is the kernel's, and no native code gets at it. So nothing else may be done with one than compare it with
NULL, or, if it has no type, make a number of it. (The verifier replaces a typed one by an address of its own choice.)
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from .ir_text import Module

SYMBOL: Final = "uxdp.value."
TYPE_ID: Final = "type_id:"  # in front of relocation kind and type name: what a placeholder without a name stands for
KSYM: Final = "ksym:"
_NAME: Final = r'(?:"[^"]*"|[-\w$.]+)'
_TYPE_ID: Final = re.compile(
    r'^@"(?P<name>llvm\.btf_type_id\.\d+\$(?P<kind>[67]))" = .*!llvm\.preserve\.access\.index !(?P<node>\d+)',
    re.MULTILINE,
)
_TYPE: Final = re.compile(
    r'^!(?P<node>\d+) = (?:distinct )?!DI\w*Type\((?:.*?, )?name: "(?P<name>[^"]*)"', re.MULTILINE
)
_LOAD: Final = re.compile(
    rf"^  (?P<name>%\S+) = load (?:volatile )?i(?P<bits>8|16|32|64), ptr @(?P<global>{_NAME})(?:, .*)?$"
)
_REFERENCE: Final = re.compile(rf"@(?P<name>{_NAME})")
_AS_NUMBER: Final = re.compile(rf"ptrtoint \(ptr @(?P<name>{_NAME}) to i64\)|ptrtoint ptr @(?P<plain>{_NAME}) to i64")
_COMPARED: Final = re.compile(rf"icmp (?:eq|ne) ptr (?:@(?P<one>{_NAME}), null|null, @(?P<other>{_NAME}))(?=[,)]|$)")


class KernelMemoryError(Exception):
    """A kernel symbol is used for more than its address; ``name`` and ``function`` say which and where."""

    def __init__(self, name: str, function: str) -> None:
        super().__init__("what is there is the kernel's; native code has only its address")
        self.name = name
        self.function = function


def is_late(name: str) -> bool:
    """Whether a value is one that code compiled ahead of time does without, by its name in ``ProgramSource.values``."""
    return not name.startswith(("llvm.", "kfunc:"))


def type_ids(text: str) -> dict[str, str]:
    """Return what the placeholders of type ids stand for: the name in ``values`` by the placeholder's.

    :param text: of the module, with its metadata
    """
    types = {match["node"]: match["name"] for match in _TYPE.finditer(text)}
    return {
        match["name"]: f"{TYPE_ID}{match['kind']}:{types[match['node']]}"
        for match in _TYPE_ID.finditer(text)
        if match["node"] in types
    }


def load_late(module: Module, names: Mapping[str, str]) -> None:
    """Replace loads of placeholders by symbols that are defined when the code is loaded.

    :param names: of the values, by the placeholder's name
    """
    used: set[str] = set()
    for function in module.functions:
        lines = []
        for line in function.lines:
            match = _LOAD.match(line) if " = load " in line and "@" in line else None
            value = names.get(match["global"].strip('"')) if match is not None else None
            if match is None or value is None:
                lines.append(line)
                continue
            used.add(value)
            symbol, result = f'@"{SYMBOL}{value}"', match["name"]
            if match["bits"] == "64":
                lines.append(f"  {result} = ptrtoint ptr {symbol} to i64")
                continue
            wide = f'%"uxdp.late.{result[1:].strip(chr(34))}"'
            lines.append(f"  {wide} = ptrtoint ptr {symbol} to i64")
            lines.append(f"  {result} = trunc i64 {wide} to i{match['bits']}")
        function.lines = lines
    _declare(module, used)


def rewrite_kernel_symbols(module: Module, symbols: Mapping[str, bool]) -> None:
    """Let references to kernel symbols be references to symbols that are defined when the code is loaded.

    :param symbols: the variables in ``.ksyms`` by name, and whether they have a type
    :raises KernelMemoryError: more is done with one than its address allows
    """
    if not symbols:
        return
    used: set[str] = set()

    def renamed(match: re.Match[str]) -> str:
        name = match["name"].strip('"')
        if name not in symbols:
            return match[0]
        used.add(KSYM + name)
        return f'@"{SYMBOL}{KSYM}{name}"'

    for function in module.functions:
        for line in function.lines:
            if "@" in line:
                _check(line, function.name, symbols)
        function.lines = [_REFERENCE.sub(renamed, line) if "@" in line else line for line in function.lines]
    defined = re.compile(rf"^@(?P<name>{_NAME}) = ")
    module.items = [
        item
        for item in module.items
        if not isinstance(item, str) or (match := defined.match(item)) is None or match["name"] not in symbols
    ]
    _declare(module, used)


def undefined(symbols: Iterable[str]) -> list[str]:
    """Return the late values that an object leaves undefined, by name.

    :param symbols: the symbols that the object leaves undefined
    """
    return [symbol.removeprefix(SYMBOL) for symbol in symbols if symbol.startswith(SYMBOL)]


def define(symbols: Iterable[str], values: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of an object's late symbols, as far as they are known.

    :param symbols: the symbols that the object leaves undefined
    """
    return {SYMBOL + name: values[name] for name in undefined(symbols) if name in values}


def _check(line: str, function: str, symbols: Mapping[str, bool]) -> None:
    rest = _COMPARED.sub("", line)
    for match in _AS_NUMBER.finditer(rest):
        name = (match["name"] or match["plain"]).strip('"')
        if symbols.get(name) is False:
            rest = rest.replace(match[0], "")
    for match in _REFERENCE.finditer(rest):
        if match["name"].strip('"') in symbols:
            raise KernelMemoryError(match["name"].strip('"'), function)


def _declare(module: Module, values: Iterable[str]) -> None:
    module.items += [f'@"{SYMBOL}{value}" = extern_weak global i8' for value in sorted(values)]
