"""What statements are written with: where in a program one is, what can be used there, the lines so far."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from .declarations import NOTED, Declarations
from .expressions import SIGNED, SIZES, UNSIGNED, Dice, Options, Values, condition, expression

MAX_NESTING: Final = 3


@dataclass
class Callee:
    """A subprogram: its name, the types of its parameters behind the context, whether it moves elements of maps, and
    whether it may throw.
    """

    name: str
    parameters: tuple[str, ...]
    moves: bool
    throws: bool


@dataclass(frozen=True)
class ElementCallback:
    """A callback of bpf_for_each_map_elem: its name, the map that it is for, whether it deletes elements."""

    name: str
    map: str
    moves: bool


@dataclass
class Place:
    """Where statements are written: what can be used, and what must not be done.

    ``callbacks`` are of bpf_loop, ``memory_callees`` subprograms that take a pointer to ``struct state``. ``held`` are
    maps of which there is a pointer to an element. ``can_move``: this function may update and delete. ``can_throw``: no
    callback leads here, and nothing has to be given back.
    """

    values: Values
    callees: tuple[Callee, ...] = ()
    callbacks: tuple[str, ...] = ()
    memory_callees: tuple[str, ...] = ()
    element_callbacks: tuple[ElementCallback, ...] = ()
    held: frozenset[str] = frozenset()
    can_move: bool = True
    has_context: bool = True
    can_tail_call: bool = True
    can_throw: bool = False
    nesting: int = 0
    in_loop: bool = False


@dataclass
class Writer:
    """Writes statements of one function."""

    dice: Dice
    options: Options
    declared: Declarations
    number: int  # of the program
    statements_of: Sequence[tuple[int, "Statement"]]  # with how often each is written
    lines: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)  # names of statements
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
            kinds = [kind for weight, kind in self.statements_of for _ in range(weight)]
            for _try in range(20):
                kind = self.dice.pick(kinds)
                if kind(self, place):
                    self.written.add(kind.__name__)
                    break

    def body(self, place: Place, count: int, **changes: Any) -> None:
        """Write the statements of a block inside."""
        inner = replace(place, values=place.values.inner(), nesting=place.nesting + 1, **changes)
        self.statements(inner, count)

    def few(self, most: int = 2) -> int:
        """Return how many statements a block has."""
        return 1 + self.dice.below(most)


class Statement(Protocol):
    """Writes one statement; returns False, and has written nothing, where that cannot be."""

    __name__: str

    def __call__(self, writer: Writer, place: Place, /) -> bool:
        """Write it."""


def atomic(writer: Writer, place: Place, target: str, kind: str) -> str:
    value = f"({kind})({writer.expression(place)})"
    form = writer.dice.below(8)
    if form == 0:
        return f"__sync_lock_test_and_set({target}, {value})"
    if form == 1:
        return f"__sync_val_compare_and_swap({target}, {value}, ({kind})({writer.expression(place)}))"
    operation = writer.dice.pick(("add", "add", "or", "and", "xor"))
    return f"__sync_fetch_and_{operation}({target}, {value})"


def noted(writer: Writer, place: Place, value: str) -> bool:
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


def array_index(writer: Writer, place: Place, count: int) -> str:
    """Return an index of an array of ``count`` elements, a power of two.

    Where LLVM knows the range it adds with an "or", which the verifier prohibits; or does without the "and" that tells
    the verifier.
    """
    masked = f"({writer.expression(place)}) & {count - 1}"
    return f"OPAQUE({masked})" if writer.dice.chance(0.97) else f"({masked})"


def frame_offset(writer: Writer, place: Place) -> str:
    if writer.dice.chance(0.6):
        return str(writer.dice.below(48))
    return array_index(writer, place, writer.dice.pick((16, 64, 256)))
