"""Statements that call other helpers and kfuncs: texts, numbers, iterators, dynptrs, records, samples, inner maps."""

from dataclasses import replace
from typing import Final

from .expressions import UNSIGNED
from .writer import MAX_NESTING, Place, Statement, Writer, array_index, frame_offset, noted


def _compared_text(writer: Writer, place: Place) -> bool:
    name = writer.name("text")
    with writer.block(""):
        letters = ", ".join(f"97 + (({writer.expression(place)}) & 1)" for _ in range(3))
        writer.line(f"char {name}[4] = {{ {letters}, 0 }};")
        noted(writer, place, f'bpf_strncmp({name}, 4, "{writer.dice.pick(("aba", "abb", "b", ""))}")')
    return True


def _number_of_text(writer: Writer, place: Place) -> bool:
    text, result, dice = writer.name("text"), writer.name("number"), writer.dice
    with writer.block(""):
        kind, how = dice.pick((("long", "strtol"), ("unsigned long", "strtoul")))
        letters = ", ".join(f"NUMERAL({writer.expression(place)})" for _ in range(5))
        writer.line(f"char {text}[6] = {{ {dice.pick(('32', '45', '48'))}, {letters} }};")
        writer.line(f"{kind} {result} = {dice.below(9)};")
        noted(writer, place, f"bpf_{how}({text}, {dice.pick((1, 4, 6))}, {dice.pick((0, 8, 10, 16, 7))}, &{result})")
        noted(writer, place, result)
    return True


def _text_of_numbers(writer: Writer, place: Place) -> bool:
    text, pattern, numbers = writer.name("text"), writer.name("pattern"), writer.name("numbers")
    size = writer.dice.pick((4, 16, 40))
    with writer.block(""):
        writer.line(
            f'static const char {pattern}[] = "{writer.dice.pick(("%d %llx", "%lld,%u", "%i %%%x", "%5d%08llx"))}";'
        )
        writer.line(f"__u64 {numbers}[2] = {{ {writer.expression(place)}, {writer.expression(place)} }};")
        writer.line(f"char {text}[{size}] = {{}};")
        noted(writer, place, f"bpf_snprintf({text}, {size}, {pattern}, {numbers}, sizeof({numbers}))")
        noted(writer, place, f"{text}[{array_index(writer, place, 4)}]")
    return True


def _numbers(writer: Writer, place: Place) -> bool:
    """bpf_for, as its macro has it."""
    if place.nesting >= MAX_NESTING - 1 or place.in_loop:
        return False
    iterator, number = writer.name("iterator"), writer.name("number")
    with writer.block(""):
        writer.line(f"struct bpf_iter_num {iterator};")
        writer.line(f"int *{number};")
        start = writer.dice.pick(("0", "-3", f"(int)(({writer.expression(place)}) & 3)"))
        writer.line(f"bpf_iter_num_new(&{iterator}, {start}, (int)(({writer.expression(place)}) & 7));")
        with writer.block(f"while (({number} = bpf_iter_num_next(&{iterator})))"):
            # Nobody may leave without destroying the iterator.
            inner = replace(place, values=place.values.inner(), can_tail_call=False, can_throw=False)
            inner.values.readable += [f"*{number}"] * 2
            writer.body(inner, writer.few(), in_loop=True)
        writer.line(f"bpf_iter_num_destroy(&{iterator});")
    return True


def _frame_dynptr(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    frame, buffer, dice = writer.name("dynptr"), writer.name("buffer"), writer.dice
    with writer.block(""):
        writer.line(f"struct bpf_dynptr {frame};")
        writer.line(f"struct buffer {buffer} = {{}};")
        noted(writer, place, f"bpf_dynptr_from_xdp(ctx, 0, &{frame})")
        if dice.chance(0.4):
            ends = (f"({writer.expression(place)}) & 31", f"({writer.expression(place)}) & 127")
            noted(writer, place, f"bpf_dynptr_adjust(&{frame}, {ends[0]}, {ends[1]})")
        noted(writer, place, f"bpf_dynptr_size(&{frame})")
        _use_dynptr(writer, place, frame, buffer)
    return True


def _memory_dynptr(writer: Writer, place: Place) -> bool:
    if place.nesting >= MAX_NESTING:
        return False
    used = writer.declared.maps[0]  # an array: its elements stay where they are
    memory, buffer, element, key = (writer.name(what) for what in ("dynptr", "buffer", "element", "key"))
    with writer.block(""):
        writer.line(f"__u32 {key} = ({writer.expression(place)}) & 7;")
        writer.line(f"struct {used.value.name} *{element} = bpf_map_lookup_elem(&{used.name}, &{key});")
        writer.line(f"struct buffer {buffer} = {{ {{ {writer.expression(place)} }} }};")
        with writer.block(f"if ({element})"):
            writer.line(f"struct bpf_dynptr {memory};")
            noted(writer, place, f"bpf_dynptr_from_mem({element}, sizeof(*{element}), 0, &{memory})")
            _use_dynptr(writer, place, memory, buffer)
    return True


def _use_dynptr(writer: Writer, place: Place, dynptr: str, buffer: str) -> None:
    dice = writer.dice
    for _ in range(writer.few()):
        size = dice.pick((1, 2, 8, 14))
        where = frame_offset(writer, place)
        form = dice.below(5)
        if form == 0:
            noted(writer, place, f"bpf_dynptr_read(&{buffer}, {size}, &{dynptr}, {where}, 0)")
            noted(writer, place, f"{buffer}.bytes[{array_index(writer, place, 64)}]")
        elif form == 1:
            writer.line(f"{buffer}.bytes[{array_index(writer, place, 64)}] = {writer.expression(place)};")
            noted(writer, place, f"bpf_dynptr_write(&{dynptr}, {where}, &{buffer}, {size}, {dice.pick((0, 0, 1))})")
        elif form == 2:
            noted(writer, place, f"bpf_dynptr_memset(&{dynptr}, {where}, {size}, {writer.expression(place)})")
        else:
            slice_, kind = writer.name("slice"), dice.pick(("slice", "slice_rdwr"))
            writer.line(f"__u8 *{slice_} = bpf_dynptr_{kind}(&{dynptr}, {where}, &{buffer}, {size});")
            with writer.block(f"if ({slice_})"):
                noted(writer, place, f"{slice_}[{dice.below(size)}]")
                if kind == "slice_rdwr":
                    writer.line(f"{slice_}[{dice.below(size)}] = {writer.expression(place)};")


def _record_dynptr(writer: Writer, place: Place) -> bool:
    record, buffer = writer.name("dynptr"), writer.name("buffer")
    with writer.block(""):
        writer.line(f"struct bpf_dynptr {record};")
        writer.line(f"struct buffer {buffer} = {{ {{ {writer.expression(place)}, {writer.expression(place)} }} }};")
        size = f"({writer.expression(place)}) & {writer.dice.pick((15, 63))}"
        noted(writer, place, f"bpf_ringbuf_reserve_dynptr(&events, {size}, 0, &{record})")
        where, count = frame_offset(writer, place), writer.dice.pick((1, 4, 8))
        noted(writer, place, f"bpf_dynptr_write(&{record}, {where}, &{buffer}, {count}, 0)")
        writer.line(f"bpf_ringbuf_{writer.dice.pick(('submit', 'submit', 'discard'))}_dynptr(&{record}, 0);")
    return True


def _sample(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    record = writer.name("record")
    with writer.block(""):
        writer.line(f"struct record {record} = {{ {writer.expression(place)}, {writer.expression(place)} }};")
        length = writer.dice.pick(("0", f"({writer.expression(place)}) & 31", f"({writer.expression(place)}) & 127"))
        flags = f"BPF_F_CURRENT_CPU | ((__u64)({length}) << 32)"
        size = writer.dice.pick((1, 8, 16))
        noted(writer, place, f"bpf_perf_event_output(ctx, &samples, {flags}, &{record}, {size})")
    return True


def _inner_map(writer: Writer, place: Place) -> bool:
    if place.nesting >= MAX_NESTING or "inner" in place.held:
        return False
    dice = writer.dice
    inner, outer_key, key, found, value = (writer.name(what) for what in ("inner", "key", "key", "found", "value"))
    with writer.block(""):
        writer.line(f"__u32 {outer_key} = ({writer.expression(place)}) & 7, {key} = ({writer.expression(place)}) & 15;")
        writer.line(f"__u64 {value} = {writer.expression(place)};")
        writer.line(f"void *{inner} = bpf_map_lookup_elem(&{dice.pick(('outer', 'outer_table'))}, &{outer_key});")
        with writer.block(f"if ({inner})"):
            if place.can_move and dice.chance(0.6):
                flags = dice.pick(("BPF_ANY", "BPF_ANY", "BPF_NOEXIST", "BPF_EXIST"))
                noted(writer, place, f"bpf_map_update_elem({inner}, &{key}, &{value}, {flags})")
            elif place.can_move and dice.chance(0.4):
                noted(writer, place, f"bpf_map_delete_elem({inner}, &{key})")
            writer.line(f"__u64 *{found} = bpf_map_lookup_elem({inner}, &{key});")
            with writer.block(f"if ({found})"):
                within = replace(place, values=place.values.inner(), held=place.held | {"inner"})
                within.values.readable.append(f"*{found}")
                within.values.assignable.append((f"*{found}", "__u64"))
                writer.body(within, writer.few())
    return True


def _memory_argument(writer: Writer, place: Place) -> bool:
    if not place.memory_callees or place.in_loop:
        return False
    state = writer.name("state")
    with writer.block(""):
        writer.line(f"struct state {state} = {{ {writer.expression(place)}, {writer.expression(place)} }};")
        noted(writer, place, f"{writer.dice.pick(place.memory_callees)}(&{state})")
        noted(writer, place, f"{state}.{writer.dice.pick(('sum', 'count', 'limit'))}")
    return True


def _bit_fields(writer: Writer, place: Place) -> bool:
    name = writer.name("bits")
    fields = ("one", "other", "third", "fourth")
    with writer.block(""):
        writer.line(f"struct bits {name} = {{ {writer.expression(place)}, {writer.expression(place)} }};")
        for _ in range(writer.few(3)):
            writer.line(
                f"{name}.{writer.dice.pick(fields)} {writer.dice.pick(('=', '+=', '^='))} {writer.expression(place)};"
            )
        noted(writer, place, f"{name}.{writer.dice.pick(fields)}")
    return True


def _ordered(writer: Writer, place: Place) -> bool:
    """Loads that acquire, and stores that release."""
    if writer.options.cpu != "v4":
        return False
    name, kind = writer.dice.pick(writer.declared.globals)
    if kind not in UNSIGNED:  # BPF has none that extends a sign
        return False
    writer.line(f"__atomic_store_n(&{name}, ({kind})({writer.expression(place)}), __ATOMIC_RELEASE);")
    return noted(writer, place, f"__atomic_load_n(&{name}, __ATOMIC_ACQUIRE)")


STATEMENTS: Final[tuple[tuple[int, Statement], ...]] = (
    (1, _compared_text),
    (1, _number_of_text),
    (1, _text_of_numbers),
    (3, _numbers),
    (2, _frame_dynptr),
    (1, _memory_dynptr),
    (1, _record_dynptr),
    (1, _sample),
    (3, _inner_map),
    (4, _memory_argument),
    (2, _bit_fields),
    (3, _ordered),
)
