"""Statements of C itself, and those that lead elsewhere: subprograms, callbacks, tail calls, the end."""

from dataclasses import replace
from typing import Final

from .declarations import NOTED
from .expressions import SIGNED, SIZES, UNSIGNED
from .writer import MAX_NESTING, Place, Statement, Writer, array_index, atomic, noted


def _assign(writer: Writer, place: Place) -> bool:
    if not place.values.assignable:
        return False
    name, _kind = writer.dice.pick(place.values.assignable)
    operator = writer.dice.pick(("=", "=", "=", "+=", "-=", "^=", "|=", "&=", "*="))
    writer.line(f"{name} {operator} {writer.expression(place)};")
    return True


def _note(writer: Writer, place: Place) -> bool:
    which = writer.number * NOTED + writer.dice.below(NOTED)
    writer.line(f"note({which}, {writer.expression(place)});")
    return True


def _branch(writer: Writer, place: Place) -> bool:
    if place.nesting >= MAX_NESTING:
        return False
    with writer.block(f"if ({writer.condition(place)})"):
        writer.body(place, writer.few())
        if place.in_loop and writer.dice.chance(0.3):
            writer.line(writer.dice.pick(("break;", "continue;")))
    if writer.dice.chance(0.4):
        with writer.block("else"):
            writer.body(place, writer.few())
    return True


def _switch(writer: Writer, place: Place) -> bool:
    if place.nesting >= MAX_NESTING:
        return False
    cases = writer.dice.some(range(12), 2 + writer.dice.below(5))
    with writer.block(f"switch ((__u32)({writer.expression(place)}) % {writer.dice.pick((4, 8, 13))})"):
        for case in cases:
            writer.line(f"case {case}:")
            writer.body(place, 1, in_loop=False)
            if writer.dice.chance(0.8):
                writer.line("break;")
        writer.line("default:")
        writer.body(place, 1, in_loop=False)
    return True


def _loop(writer: Writer, place: Place) -> bool:
    if place.nesting >= MAX_NESTING - 1 or place.in_loop:
        return False
    index = writer.name("i")
    if writer.dice.chance(0.5):
        writer.line("#pragma clang loop unroll(disable)")
    kind = writer.dice.pick(("int", "__u32", "__u64"))
    with writer.block(f"for ({kind} {index} = 0; {index} < {2 + writer.dice.below(6)}; {index}++)"):
        inner = replace(place, values=place.values.inner())
        inner.values.readable += [index, index]
        writer.body(inner, writer.few(), in_loop=True)
    return True


def _timed_loop(writer: Writer, place: Place) -> bool:
    """can_loop and cond_break: the loop ends, but the verifier need not see that."""
    if place.nesting >= MAX_NESTING - 1 or place.in_loop:
        return False
    index, most = writer.name("i"), writer.dice.pick((7, 63, 255))
    inner = replace(place, values=place.values.inner())
    inner.values.readable += [index, index]
    limit = f"(({writer.expression(place)}) & {most})"
    if writer.dice.chance(0.5):
        with writer.block(f"for (__u32 {index} = 0; {index} < {limit} && can_loop; {index}++)"):
            writer.body(inner, writer.few(), in_loop=True)
    else:
        with writer.block(f"for (__u32 {index} = 0;; {index}++)"):
            writer.line(f"if ({index} >= {limit})")
            writer.line("\tbreak;")
            writer.line("cond_break;")
            writer.body(inner, writer.few(), in_loop=True)
    return True


def _stack_array(writer: Writer, place: Place) -> bool:
    if not place.values.assignable:
        return False
    kind = writer.dice.pick((*UNSIGNED, *SIGNED))
    count = writer.dice.pick((2, 4, 8, 16))
    name = writer.name("array")
    target, _kind = writer.dice.pick(place.values.assignable)
    with writer.block(""):
        writer.line(f"{kind} {name}[{count}] = {{ {writer.expression(place)} }};")
        for _ in range(writer.few(3)):
            writer.line(f"{name}[{array_index(writer, place, count)}] = {writer.expression(place)};")
        writer.line(f"{target} ^= {name}[{array_index(writer, place, count)}];")
    return True


def _global(writer: Writer, place: Place) -> bool:
    name, kind = writer.dice.pick(writer.declared.globals)
    if SIZES[kind] >= 4 and writer.dice.chance(0.3):
        return noted(writer, place, atomic(writer, place, f"&{name}", kind))
    writer.line(f"{name} {writer.dice.pick(('=', '+=', '^='))} {writer.expression(place)};")
    return True


def _call(writer: Writer, place: Place) -> bool:
    callees = [
        one
        for one in place.callees
        if not (one.moves and (place.held or not place.can_move)) and (place.can_throw or not one.throws)
    ]
    if not callees or place.in_loop:
        return False
    callee = writer.dice.pick(callees)
    arguments = "".join(f", {writer.expression(place)}" for _ in callee.parameters)
    return noted(writer, place, f"{callee.name}(ctx{arguments})")


def _callback(writer: Writer, place: Place) -> bool:
    if not place.callbacks or place.in_loop:
        return False
    state = writer.name("state")
    with writer.block(""):
        numbers = ", ".join(writer.expression(place) for _ in range(3))
        writer.line(f"struct state {state} = {{ {numbers} }};")
        times = f"({writer.expression(place)}) & {writer.dice.pick((3, 15))}"
        noted(writer, place, f"bpf_loop({times}, {writer.dice.pick(place.callbacks)}, &{state}, 0)")
        noted(writer, place, f"{state}.{writer.dice.pick(('sum', 'count', 'limit'))}")
    return True


def _tail_call(writer: Writer, place: Place) -> bool:
    if not place.can_tail_call or place.in_loop or place.held or not writer.dice.chance(0.3):
        return False
    with writer.block(f"if ({writer.condition(place)})"):
        writer.line(f"bpf_tail_call(ctx, &programs, ({writer.expression(place)}) & 31);")
        writer.body(place, 1)
    return True


def _return(writer: Writer, place: Place) -> bool:
    if not place.can_tail_call or place.nesting == 0 or not writer.dice.chance(0.3):
        return False
    writer.line(f"return {verdict(writer, place)};")
    return True


def _throw(writer: Writer, place: Place) -> bool:
    if not place.can_throw:
        return False
    with writer.block(f"if ({writer.condition(place)})"):
        writer.line(f"bpf_throw({verdict(writer, place)});")
    return True


def verdict(writer: Writer, place: Place) -> str:
    """Return what a program returns: a verdict, or any number, or a redirect."""
    form = writer.dice.below(10)
    if writer.options.redirects and form < 5:
        key = f"({writer.expression(place)}) & 7"
        if form < 2:
            return f"bpf_redirect(1 + (({writer.expression(place)}) & 3), {writer.dice.pick((0, 0, 1))})"
        if form < 3:
            return f"bpf_redirect_map(&cpus, {key}, ({writer.expression(place)}) & 3)"
        flags = writer.dice.pick(("0", f"({writer.expression(place)}) & 3", "BPF_F_BROADCAST", "8 | 16", "64"))
        return f"bpf_redirect_map(&devices, {key}, {flags})"
    # Without a target a redirect is an error of the kernel's, which is no verdict to compare targets with.
    return f"(({writer.expression(place)}) & 3)" if form < 9 else f"4096 | ({writer.expression(place)})"


STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    (12, _assign),
    (3, _note),
    (8, _branch),
    (3, _switch),
    (4, _loop),
    (2, _timed_loop),
    (4, _stack_array),
    (4, _global),
    (5, _call),
    (3, _callback),
    (5, _tail_call),
    (5, _return),
    (3, _throw),
)
