"""Statements about queues, stacks and Bloom filters, values with a lock, and all elements of a map."""

from dataclasses import replace
from typing import Final

from .writer import MAX_NESTING, Place, Statement, Writer, noted

_MEMBERS: Final = (("sum", "__u64"), ("last", "__u32"), ("bytes", "__s64"))  # of struct account, but for its lock


def _queue(writer: Writer, place: Place) -> bool:
    return _sequence(writer, place, "queue")


def _stack(writer: Writer, place: Place) -> bool:
    return _sequence(writer, place, "stack")


def _sequence(writer: Writer, place: Place, name: str) -> bool:
    cell, value, dice = writer.declared.sequences[name], writer.name("value"), writer.dice
    with writer.block(""):
        numbers = ", ".join(writer.expression(place) for _ in cell.members[:3])
        writer.line(f"struct {cell.name} {value} = {{ {numbers} }};")
        if dice.chance(0.5):
            flags = dice.pick(("BPF_ANY", "BPF_ANY", "BPF_EXIST", "BPF_NOEXIST"))
            return noted(writer, place, f"bpf_map_push_elem(&{name}, &{value}, {flags})")
        noted(writer, place, f"bpf_map_{dice.pick(('pop', 'pop', 'peek'))}_elem(&{name}, &{value})")
        for member, _kind in dice.some(cell.members, 2):
            noted(writer, place, f"{value}.{member}")
    return True


def _bloom_filter(writer: Writer, place: Place) -> bool:
    value, dice = writer.name("value"), writer.dice
    with writer.block(""):
        low = f"({writer.expression(place)}) & {dice.pick((31, 255))}"
        writer.line(f"struct flow {value} = {{ {low}, ({writer.expression(place)}) & 3, {dice.below(3)}, 0 }};")
        if dice.chance(0.4):
            flags = dice.pick(("BPF_ANY", "BPF_ANY", "BPF_ANY", "BPF_EXIST"))
            noted(writer, place, f"bpf_map_push_elem(&filter, &{value}, {flags})")
        noted(writer, place, f"bpf_map_peek_elem(&filter, &{value})")
    return True


def _lock(writer: Writer, place: Place) -> bool:
    """Change a value under its lock, where nothing may be called."""
    if place.nesting >= MAX_NESTING:
        return False
    dice, key, found = writer.dice, writer.name("key"), writer.name("found")
    name = dice.pick(("accounts", "account_slots"))
    with writer.block(""):
        writer.line(f"__u32 {key} = ({writer.expression(place)}) & 31;")
        writer.line(f"struct account *{found} = bpf_map_lookup_elem(&{name}, &{key});")
        with writer.block(f"if ({found})"):
            inner = replace(place, values=place.values.inner(), held=place.held | {name})
            inner.values.readable += [f"{found}->{member}" for member, _kind in _MEMBERS]
            writer.line(f"bpf_spin_lock(&{found}->lock);")
            for member, _kind in dice.some(_MEMBERS, 1 + dice.below(3)):
                writer.line(f"{found}->{member} {dice.pick(('=', '+=', '^='))} {writer.expression(inner)};")
            writer.line(f"bpf_spin_unlock(&{found}->lock);")
            noted(writer, inner, f"{found}->{dice.pick(_MEMBERS)[0]}")
            inner.values.assignable += [(f"{found}->{member}", kind) for member, kind in _MEMBERS]
            writer.body(inner, 1)
        if name == "accounts" and (name in place.held or not place.can_move):
            return True
        value = writer.name("value")
        numbers = ", ".join(f".{member} = {writer.expression(place)}" for member, _kind in _MEMBERS)
        with writer.block("else" if dice.chance(0.6) else f"if ({writer.condition(place)})"):
            writer.line(f"struct account {value} = {{ {numbers} }};")
            flags = dice.pick(("BPF_ANY", "BPF_ANY", "BPF_NOEXIST", "BPF_F_LOCK", "BPF_F_LOCK | BPF_EXIST"))
            noted(writer, place, f"bpf_map_update_elem(&{name}, &{key}, &{value}, {flags})")
        if dice.chance(0.2):
            with writer.block(f"if ({writer.condition(place)})"):
                noted(writer, place, f"bpf_map_delete_elem(&{name}, &{key})")
    return True


def _each_element(writer: Writer, place: Place) -> bool:
    callbacks = [
        one for one in place.element_callbacks if not (one.moves and (one.map in place.held or not place.can_move))
    ]
    if not callbacks or place.in_loop:
        return False
    callback, state = writer.dice.pick(callbacks), writer.name("state")
    with writer.block(""):
        numbers = ", ".join(writer.expression(place) for _ in range(3))
        writer.line(f"struct state {state} = {{ {numbers} }};")
        flags = writer.dice.pick((0, 0, 0, 0, 0, 1))
        noted(writer, place, f"bpf_for_each_map_elem(&{callback.map}, {callback.name}, &{state}, {flags})")
        for member in writer.dice.some(("sum", "count", "limit"), 2):
            noted(writer, place, f"{state}.{member}")
    return True


STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    (2, _queue),
    (2, _stack),
    (2, _bloom_filter),
    (2, _lock),
    (4, _each_element),
)
