"""Random statements: arithmetic, branches, loops, the frame, maps, atomics, helpers.

Whatever is written here passes the verifier, as far as the compiler leaves it as it is: pointers into the frame are
made anew for every access, from the context, and compared with the end right there; elements of maps are compared with
null, and used in the block behind that alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from .declarations import NOTED, Declarations, MapOf
from .expressions import SIGNED, SIZES, UNSIGNED, Dice, Options, Values, condition, expression

_MAX_NESTING = 3
_FLAGS = ("BPF_ANY", "BPF_ANY", "BPF_ANY", "BPF_NOEXIST", "BPF_EXIST", "7")


@dataclass
class Callee:
    """A subprogram: its name, the types of its parameters behind the context, whether it moves elements of maps."""

    name: str
    parameters: tuple[str, ...]
    moves: bool


@dataclass
class Place:
    """Where statements are written: what can be used, and what must not be done.

    ``held`` are maps of which there is a pointer to an element. ``can_move``: this function may update and delete.
    """

    values: Values
    callees: tuple[Callee, ...] = ()
    callbacks: tuple[str, ...] = ()
    held: frozenset[str] = frozenset()
    can_move: bool = True
    has_context: bool = True
    can_tail_call: bool = True
    nesting: int = 0
    in_loop: bool = False


@dataclass
class Writer:
    """Writes statements of one function."""

    dice: Dice
    options: Options
    declared: Declarations
    number: int  # of the program
    lines: list[str] = field(default_factory=list)
    _names: int = 0
    _indent: int = 1

    def name(self, prefix: str) -> str:
        """Return a name that no other has."""
        self._names += 1
        return f"{prefix}{self._names}"

    def line(self, text: str) -> None:
        """Write one line."""
        self.lines.append("\t" * self._indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write a block."""
        self.line(head + " {")
        self._indent += 1
        yield
        self._indent -= 1
        self.line("}")

    def expression(self, place: Place) -> str:
        """Return an expression."""
        return expression(self.dice, place.values, self.options)

    def condition(self, place: Place) -> str:
        """Return a condition."""
        return condition(self.dice, place.values, self.options)

    def locals(self, place: Place, count: int) -> None:
        """Declare variables, each with a value."""
        for _ in range(count):
            name, kind = self.name("v"), self.dice.pick((*UNSIGNED, *SIGNED))
            self.line(f"{kind} {name} = {self.expression(place)};")
            place.values.readable.append(name)
            place.values.assignable.append((name, kind))

    def frame_word(self, place: Place) -> None:
        """Declare a variable that is of the frame, which has at least 14 bytes."""
        name, kind, offset = self.name("v"), self.dice.pick(UNSIGNED), self.dice.below(14 - 7)
        self.line(f"{kind} {name} = {self.dice.below(10)};")
        with self.block(f"if ((__u8 *)(long)ctx->data + {offset + SIZES[kind]} <= (__u8 *)(long)ctx->data_end)"):
            self.line(f"{name} = *({kind} *)((__u8 *)(long)ctx->data + {offset});")
        place.values.readable += [name, name]
        place.values.assignable.append((name, kind))

    def statements(self, place: Place, count: int) -> None:
        """Write random statements."""
        for _ in range(count):
            kinds = [kind for weight, kind in _STATEMENTS for _ in range(weight)]
            for _try in range(20):
                if self.dice.pick(kinds)(self, place):
                    break

    def body(self, place: Place, count: int, **changes: Any) -> None:
        """Write the statements of a block inside."""
        inner = replace(place, values=place.values.inner(), nesting=place.nesting + 1, **changes)
        self.statements(inner, count)

    def few(self, most: int = 2) -> int:
        """Return how many statements a block has."""
        return 1 + self.dice.below(most)


Statement = Callable[[Writer, Place], bool]


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
    if place.nesting >= _MAX_NESTING:
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
    if place.nesting >= _MAX_NESTING:
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
    if place.nesting >= _MAX_NESTING - 1 or place.in_loop:
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


def _read_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context or not place.values.assignable:
        return False
    kind = writer.dice.pick((*UNSIGNED, *SIGNED))
    offset, size = _offset(writer, place), SIZES[kind]
    pointer = writer.name("p")
    name, _kind = writer.dice.pick(place.values.assignable)
    with writer.block(""):
        writer.line(f"__u8 *{pointer} = SAME((__u8 *)(long)ctx->data + {offset});")
        with writer.block(f"if ({pointer} + {size} <= (__u8 *)(long)ctx->data_end)"):
            writer.line(f"{name} {writer.dice.pick(('=', '+=', '^='))} *({kind} *){pointer};")
        if writer.dice.chance(0.3):
            with writer.block("else"):
                writer.body(place, 1)
    return True


def _write_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    kind = writer.dice.pick((*UNSIGNED, *SIGNED))
    pointer = writer.name("p")
    with writer.block(""):
        writer.line(f"__u8 *{pointer} = SAME((__u8 *)(long)ctx->data + {_offset(writer, place)});")
        with writer.block(f"if ({pointer} + {SIZES[kind]} <= (__u8 *)(long)ctx->data_end)"):
            writer.line(f"*({kind} *){pointer} {writer.dice.pick(('=', '+=', '^='))} {writer.expression(place)};")
    return True


def _metadata(writer: Writer, place: Place) -> bool:
    if not place.has_context or not place.values.assignable:
        return False
    kind, pointer = writer.dice.pick(UNSIGNED), writer.name("p")
    name, _kind = writer.dice.pick(place.values.assignable)
    with writer.block(""):
        writer.line(f"__u8 *{pointer} = SAME((__u8 *)(long)ctx->data_meta);")
        with writer.block(f"if ({pointer} + {SIZES[kind]} <= (__u8 *)(long)ctx->data)"):
            if writer.dice.chance(0.5):
                writer.line(f"*({kind} *){pointer} = {writer.expression(place)};")
            else:
                writer.line(f"{name} = *({kind} *){pointer};")
    return True


def _context(writer: Writer, place: Place) -> bool:
    if not place.has_context or not place.values.assignable:
        return False
    name, _kind = writer.dice.pick(place.values.assignable)
    value = writer.dice.pick(
        (
            "DISTANCE(ctx->data, ctx->data_end)",
            "DISTANCE(ctx->data_meta, ctx->data)",
            "ctx->ingress_ifindex",
            "ctx->rx_queue_index",
            "bpf_xdp_get_buff_len(ctx)",
            "bpf_get_smp_processor_id()",
        )
    )
    writer.line(f"{name} += {value};")
    return True


def _move_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    what = writer.dice.pick(("head", "tail", "meta"))
    # Where a frame goes is seen of another run in the kernel, in whose headroom other bytes may lie: none of them here.
    least = 0 if writer.options.redirects and what != "tail" else 32
    delta = f"((int)(({writer.expression(place)}) & 63) - {least})"
    if what == "meta":
        delta = f"({delta} & ~3)" if writer.dice.chance(0.8) else delta
    return _noted(writer, place, f"bpf_xdp_adjust_{what}(ctx, {delta})")


def _copy_frame(writer: Writer, place: Place) -> bool:
    if not place.has_context:
        return False
    size = writer.dice.pick((1, 4, 14, 32, 64))
    name = writer.name("buffer")
    with writer.block(""):
        writer.line(f"struct buffer {name} = {{}};")
        index = _index(writer, place, 64)
        writer.line(f"{name}.bytes[{index}] = {writer.expression(place)};")
        how = writer.dice.pick(("load", "store"))
        _noted(writer, place, f"bpf_xdp_{how}_bytes(ctx, {_offset(writer, place)}, &{name}, {size})")
        if how == "load":
            _noted(writer, place, f"{name}.bytes[{_index(writer, place, 64)}]")
    return True


def _checksum(writer: Writer, place: Place) -> bool:
    one, other = writer.name("from"), writer.name("to")
    sizes = [writer.dice.pick((0, 4, 8, 16)) for _ in range(2)]
    with writer.block(""):
        for name in (one, other):
            numbers = ", ".join(writer.expression(place) for _ in range(4))
            writer.line(f"__u32 {name}[4] = {{ {numbers} }};")
        seed = writer.expression(place)
        first, second = (
            f"{name if size else '(void *)0'}, {size}" for name, size in zip((one, other), sizes, strict=True)
        )
        _noted(writer, place, f"bpf_csum_diff({first}, {second}, {seed})")
    return True


def _stack(writer: Writer, place: Place) -> bool:
    if not place.values.assignable:
        return False
    kind = writer.dice.pick((*UNSIGNED, *SIGNED))
    count = writer.dice.pick((2, 4, 8, 16))
    name = writer.name("array")
    target, _kind = writer.dice.pick(place.values.assignable)
    with writer.block(""):
        writer.line(f"{kind} {name}[{count}] = {{ {writer.expression(place)} }};")
        for _ in range(writer.few(3)):
            writer.line(f"{name}[{_index(writer, place, count)}] = {writer.expression(place)};")
        writer.line(f"{target} ^= {name}[{_index(writer, place, count)}];")
    return True


def _global(writer: Writer, place: Place) -> bool:
    name, kind = writer.dice.pick(writer.declared.globals)
    if SIZES[kind] >= 4 and writer.dice.chance(0.3):
        return _noted(writer, place, _atomic(writer, place, f"&{name}", kind))
    writer.line(f"{name} {writer.dice.pick(('=', '+=', '^='))} {writer.expression(place)};")
    return True


def _lookup(writer: Writer, place: Place) -> bool:
    if place.nesting >= _MAX_NESTING:
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
                    _noted(writer, inner, _atomic(writer, inner, f"&{element}->{name}", kind))
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
    return _noted(writer, place, f"{how}{key}, &{value}, {flags})")


def _delete(writer: Writer, place: Place) -> bool:
    used = writer.dice.pick(writer.declared.maps)
    if used.name in place.held or not place.can_move:
        return False
    key = writer.name("key")
    with writer.block(""):
        _declare_key(writer, place, used, key)
        how = f"drop_{used.name}(" if writer.dice.chance(0.75) else f"bpf_map_delete_elem(&{used.name}, "
        _noted(writer, place, f"{how}&{key})")
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
            _noted(writer, place, f"bpf_ringbuf_output(&events, &{record}, {size}, 0)")
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


def _call(writer: Writer, place: Place) -> bool:
    callees = [one for one in place.callees if not (one.moves and (place.held or not place.can_move))]
    if not callees or place.in_loop:
        return False
    callee = writer.dice.pick(callees)
    arguments = "".join(f", {writer.expression(place)}" for _ in callee.parameters)
    return _noted(writer, place, f"{callee.name}(ctx{arguments})")


def _callback(writer: Writer, place: Place) -> bool:
    if not place.callbacks or place.in_loop:
        return False
    state = writer.name("state")
    with writer.block(""):
        numbers = ", ".join(writer.expression(place) for _ in range(3))
        writer.line(f"struct state {state} = {{ {numbers} }};")
        times = f"({writer.expression(place)}) & {writer.dice.pick((3, 15))}"
        _noted(writer, place, f"bpf_loop({times}, {writer.dice.pick(place.callbacks)}, &{state}, 0)")
        _noted(writer, place, f"{state}.{writer.dice.pick(('sum', 'count', 'limit'))}")
    return True


def _strings(writer: Writer, place: Place) -> bool:
    name = writer.name("text")
    with writer.block(""):
        letters = ", ".join(f"97 + (({writer.expression(place)}) & 1)" for _ in range(3))
        writer.line(f"char {name}[4] = {{ {letters}, 0 }};")
        _noted(writer, place, f'bpf_strncmp({name}, 4, "{writer.dice.pick(("aba", "abb", "b", ""))}")')
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


def _atomic(writer: Writer, place: Place, target: str, kind: str) -> str:
    value = f"({kind})({writer.expression(place)})"
    form = writer.dice.below(8)
    if form == 0:
        return f"__sync_lock_test_and_set({target}, {value})"
    if form == 1:
        return f"__sync_val_compare_and_swap({target}, {value}, ({kind})({writer.expression(place)}))"
    operation = writer.dice.pick(("add", "add", "or", "and", "xor"))
    return f"__sync_fetch_and_{operation}({target}, {value})"


def _noted(writer: Writer, place: Place, value: str) -> bool:
    """Do something and keep its result, in a variable or among the results, or not."""
    form = writer.dice.below(10)
    if form < 6 and place.values.assignable:
        name, _kind = writer.dice.pick(place.values.assignable)
        writer.line(f"{name} = {value};")
    elif form < 9:
        writer.line(f"note({writer.number * NOTED + writer.dice.below(NOTED)}, {value});")
    else:
        writer.line(f"(void)({value});")
    return True


def _index(writer: Writer, place: Place, count: int) -> str:
    """Return an index of an array of ``count`` elements, a power of two.

    Where LLVM knows the range it adds with an "or", which the verifier prohibits; or does without the "and" that tells
    the verifier.
    """
    masked = f"({writer.expression(place)}) & {count - 1}"
    return f"OPAQUE({masked})" if writer.dice.chance(0.97) else f"({masked})"


def _offset(writer: Writer, place: Place) -> str:
    if writer.dice.chance(0.6):
        return str(writer.dice.below(48))
    return _index(writer, place, writer.dice.pick((16, 64, 256)))


_STATEMENTS: tuple[tuple[int, Statement], ...] = (
    (12, _assign),
    (3, _note),
    (8, _branch),
    (3, _switch),
    (4, _loop),
    (6, _read_frame),
    (5, _write_frame),
    (1, _metadata),
    (2, _context),
    (3, _move_frame),
    (2, _copy_frame),
    (2, _checksum),
    (4, _stack),
    (4, _global),
    (8, _lookup),
    (4, _update),
    (2, _delete),
    (2, _ring),
    (5, _call),
    (3, _callback),
    (1, _strings),
    (2, _tail_call),
    (2, _return),
)
