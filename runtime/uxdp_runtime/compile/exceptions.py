"""Exceptions, bpf_throw: the program ends, from however deep, and its handler says with which verdict.

In the kernel the stack is cut off down to the program that frames entered last, a tail call's included; without a
handler of its own (``exception_callback`` among its declaration tags) the cookie is what the program returns. Natively
each function returns: a word of the module says that something was thrown, and behind a call of a function that may
throw it is looked at. Where nothing is thrown that costs one test per call; inlined, nothing.

The verifier lets nothing be held when something is thrown (locks, references, records), and no callback throw.

Reference: Linux, kernel/bpf/helpers.c, bpf_throw and bpf_stack_walker
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from uxdp_bundle.ir_syntax import NAME

from .calls import UnsupportedCallError
from .forwarders import converted, operands_of
from .ir_text import Function, Module, closing

THROW: Final = "bpf_throw"
_THROWN: Final = "@uxdp.thrown"
_COOKIE: Final = "@uxdp.cookie"
_CALL: Final = re.compile(rf"^  (?:%{NAME} = )?call (?:void|ptr|i\d+|\{{[^}}]*\}}) @(?P<name>{NAME})\(")
_LABEL: Final = re.compile(rf"^(?P<name>{NAME}):")
_EDGE: Final = re.compile(rf", (?P<block>%{NAME}) \]")
_REFERENCE: Final = re.compile(rf"@(?P<name>{NAME})")


def rewrite_exceptions(module: Module, entries: Collection[str], handlers: Mapping[str, str]) -> None:
    """Let calls of bpf_throw, and of functions that may throw, return.

    :param entries: the programs
    :param handlers: the functions that handle the exceptions of programs that have one
    :raises UnsupportedCallError: a callback or a handler throws, which the kernel refuses too
    """
    functions = {function.name: function for function in module.functions}
    throwing = _throwing(functions)
    if not throwing:
        return
    for function in functions.values():
        _check(function, throwing, handlers)
    for name in sorted(throwing):
        handler = functions.get(handlers.get(name, ""))
        functions[name].lines = list(_Rewriter(functions[name], throwing, name in entries, handler).rewritten())
    module.items += [f"{_THROWN} = internal global i8 0", f"{_COOKIE} = internal global i64 0"]


def _throwing(functions: Mapping[str, Function]) -> set[str]:
    """Return the functions that throw, or call one that does."""
    callers: dict[str, set[str]] = {}
    for function in functions.values():
        for line in function.lines:
            match = _CALL.match(line) if "@" in line else None
            if match is not None:
                callers.setdefault(match["name"], set()).add(function.name)
    found: set[str] = set()
    work = [THROW] if THROW not in functions else []
    while work:
        for caller in callers.get(work.pop(), set()) - found:
            found.add(caller)
            work.append(caller)
    return found


def _check(function: Function, throwing: set[str], handlers: Mapping[str, str]) -> None:
    if function.name in throwing and function.name in handlers.values():
        raise UnsupportedCallError(THROW, "called by a handler of exceptions", function.name)
    for line in function.lines:
        if "@" not in line or " = icmp " in line:
            continue
        match = _CALL.match(line)
        named = line if match is None else line[match.end() :]
        for reference in _REFERENCE.finditer(named):
            if reference["name"] in throwing or reference["name"] == THROW:
                raise UnsupportedCallError(THROW, "called by a callback", function.name)


class _Rewriter:
    """Rewrites one function that may throw."""

    def __init__(self, function: Function, throwing: set[str], is_entry: bool, handler: Function | None) -> None:
        self._function = function
        self._throwing = throwing
        self._is_entry = is_entry
        self._handler = handler
        self._count = 0

    def rewritten(self) -> Iterator[str]:
        """Yield the function's lines."""
        lines: list[str] = []
        renamed: dict[str, str] = {}
        block = ""
        for line in self._function.lines:
            if label := _LABEL.match(line):
                block = f"%{label['name']}"
            match = _CALL.match(line) if "@" in line else None
            name = match["name"] if match is not None else ""
            if match is None or (name != THROW and name not in self._throwing):
                lines.append(line)
                continue
            following = f'"uxdp.thrown.on.{self._count}"'
            if name == THROW:
                (cookie,) = operands_of(line[match.end() : closing(line, match.end() - 1)])
                lines += [*self._thrown(cookie.partition(" ")[2]), f"{following}:"]
            else:
                lines += [line, *self._passed_on(following)]
            self._count += 1
            renamed[block] = block = f"%{following}"
        for line in lines:
            yield _EDGE.sub(lambda edge: f", {_last(edge['block'], renamed)} ]", line) if " = phi " in line else line

    def _thrown(self, cookie: str) -> list[str]:
        if self._is_entry:
            return self._handled(cookie)
        return [f"  store i64 {cookie}, ptr {_COOKIE}", f"  store i8 1, ptr {_THROWN}", self._return()]

    def _passed_on(self, following: str) -> list[str]:
        """Return what follows a call: on, if nothing was thrown."""
        base = f"uxdp.thrown.{{}}.{self._count}"
        word, met, away = (f'%"{base.format(part)}"' for part in ("word", "met", "away"))
        lines = [
            f"  {word} = load i8, ptr {_THROWN}",
            f"  {met} = icmp ne i8 {word}, 0",
            f"  br i1 {met}, label {away}, label %{following}",
            f"{away[1:]}:",
        ]
        if self._is_entry:
            cookie = f'%"{base.format("cookie")}"'
            lines += [f"  store i8 0, ptr {_THROWN}", f"  {cookie} = load i64, ptr {_COOKIE}", *self._handled(cookie)]
        else:
            lines.append(self._return())
        return [*lines, f"{following}:"]

    def _handled(self, cookie: str) -> list[str]:
        """Return what ends a program with a cookie."""
        result = self._function.result_type
        taken, kind, lines = cookie, "i64", []
        if self._handler is not None:
            parameters = self._handler.parameter_types
            given = f'%"uxdp.thrown.given.{self._count}"'
            lines = [f"  {given} = add i64 {cookie}, 0"]
            value, code = converted(given, "i64", parameters[0] if parameters else "i64")
            passed = f"{parameters[0]} {value}" if parameters else ""
            taken, kind = f'%"uxdp.thrown.handled.{self._count}"', self._handler.result_type
            lines += [*code, f"  {taken} = call {kind} @{self._handler.name}({passed})"]
        elif not cookie.startswith("%"):
            taken = f'%"uxdp.thrown.given.{self._count}"'
            lines = [f"  {taken} = add i64 {cookie}, 0"]
        if result == "void":
            return [*lines, "  ret void"]
        value, code = converted(taken, kind, result)
        return [*lines, *code, f"  ret {result} {value}"]

    def _return(self) -> str:
        result = self._function.result_type
        return "  ret void" if result == "void" else f"  ret {result} zeroinitializer"


def _last(block: str, renamed: Mapping[str, str]) -> str:
    while block in renamed:
        block = renamed[block]
    return block
