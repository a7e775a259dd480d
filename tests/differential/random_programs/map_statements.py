"""Statements about maps: elements are compared with null, and used in the block behind that alone.

Nobody updates or deletes an element of a map of whose elements a pointer is held: which memory a new element gets is no
promise.
"""

from dataclasses import replace
from typing import Final

from .declarations import MapOf
from .expressions import SIZES
from .writer import MAX_NESTING, Place, Statement, Writer, atomic, noted

_FLAGS: Final = ("BPF_ANY", "BPF_ANY", "BPF_ANY", "BPF_NOEXIST", "BPF_EXIST", "7")


def _lookup(writer: Writer, place: Place) -> bool:
    if place.nesting >= MAX_NESTING:
        return False
    used = writer.dice.pick(writer.declared.maps)
    key, element = writer.name("key"), writer.name("element")
    with writer.block(""):
        _declare_key(writer, place, used, key)
        writer.line(f"struct {used.value.name} *{element} = bpf_map_lookup_elem(&{used.name}, &{key});")
        with writer.block(f"if ({element})"):
            inner = replace(place, values=place.values.inner(), held=place.held | {used.name})
            members = writer.dice.some(used.value.members, 2)
            inner.values.readable += [f"{element}->{name}" for name, _kind in members]
            inner.values.assignable += [(f"{element}->{name}", kind) for name, kind in members]
            for name, kind in members:
                if SIZES[kind] >= 4 and writer.dice.chance(0.4):
                    noted(writer, inner, atomic(writer, inner, f"&{element}->{name}", kind))
            if writer.dice.chance(0.15):
                copy = writer.name("copy")
                writer.line(f"struct {used.value.name} {copy} = *{element};")
                writer.line(f"{copy}.{writer.dice.pick(used.value.members)[0]} += {writer.expression(inner)};")
                writer.line(f"*{element} = {copy};")
            writer.body(inner, writer.few())
        if writer.dice.chance(0.6):
            with writer.block("else"):
                if not _update_of(writer, place, used, f"&{key}"):
                    writer.body(place, 1)
    return True


def _update(writer: Writer, place: Place) -> bool:
    used = writer.dice.pick(writer.declared.maps)
    key = writer.name("key")
    with writer.block(""):
        _declare_key(writer, place, used, key)
        _update_of(writer, place, used, f"&{key}")
    return True


def _update_of(writer: Writer, place: Place, used: MapOf, key: str) -> bool:
    if used.moves and (used.name in place.held or not place.can_move):
        return False
    value = writer.name("value")
    numbers = ", ".join(writer.expression(place) for _ in used.value.members[:3])
    writer.line(f"struct {used.value.name} {value} = {{ {numbers} }};")
    flags = writer.dice.pick(_FLAGS)
    how = f"put_{used.name}(" if writer.dice.chance(0.75) else f"bpf_map_update_elem(&{used.name}, "
    return noted(writer, place, f"{how}{key}, &{value}, {flags})")


def _delete(writer: Writer, place: Place) -> bool:
    used = writer.dice.pick(writer.declared.maps)
    if used.name in place.held or not place.can_move:
        return False
    key = writer.name("key")
    with writer.block(""):
        _declare_key(writer, place, used, key)
        how = f"drop_{used.name}(" if writer.dice.chance(0.75) else f"bpf_map_delete_elem(&{used.name}, "
        noted(writer, place, f"{how}&{key})")
    return True


def _declare_key(writer: Writer, place: Place, used: MapOf, name: str) -> None:
    low = f"(({writer.expression(place)}) & {writer.dice.pick((7, 31))})"
    if used.key == "struct flow":
        writer.line(f"struct flow {name} = {{ {low}, ({writer.expression(place)}) & 3, {writer.dice.below(3)}, 0 }};")
    elif used.key == "struct prefix":
        length = f"({writer.expression(place)}) & 31" if writer.dice.chance(0.8) else str(writer.dice.below(36))
        second = writer.expression(place)
        writer.line(f"struct prefix {name} = {{ {length}, {{ 10, {low}, ({second}) & 1, {writer.dice.below(4)} }} }};")
    else:
        writer.line(f"{used.key} {name} = {low};")


def _ring(writer: Writer, place: Place) -> bool:
    record = writer.name("record")
    with writer.block(""):
        numbers = [writer.expression(place) for _ in range(3)]
        if writer.dice.chance(0.4):
            writer.line(f"struct record {record} = {{ {', '.join(numbers)} }};")
            size = writer.dice.pick((1, 8, 16))
            noted(writer, place, f"bpf_ringbuf_output(&events, &{record}, {size}, 0)")
            return True
        writer.line(f"struct record *{record} = bpf_ringbuf_reserve(&events, sizeof(struct record), 0);")
        with writer.block(f"if ({record})"):
            for member, number in writer.dice.some(list(zip(("what", "of", "then"), numbers, strict=True)), 2):
                writer.line(f"{record}->{member} = {number};")
            if writer.dice.chance(0.3):
                with writer.block(f"if ({writer.condition(place)})"):
                    writer.line(f"bpf_ringbuf_discard({record}, 0);")
                with writer.block("else"):
                    writer.line(f"bpf_ringbuf_submit({record}, 0);")
            else:
                writer.line(f"bpf_ringbuf_submit({record}, 0);")
    return True


STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    (8, _lookup),
    (4, _update),
    (2, _delete),
    (2, _ring),
)
