"""Random C expressions over integers of all widths, and the dice that everything random here is thrown with."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

_T = TypeVar("_T")

UNSIGNED: Final = ("__u8", "__u16", "__u32", "__u64")
SIGNED: Final = ("__s8", "__s16", "__s32", "__s64")
SIZES: Final = {name: 1 << index % 4 for index, name in enumerate((*UNSIGNED, *SIGNED))}
_EDGES: Final = tuple(
    value & (1 << 64) - 1 for bits in (7, 8, 15, 16, 31, 32, 63) for value in ((1 << bits) - 1, 1 << bits, -(1 << bits))
)
_MAX_DEPTH: Final = 4


class Dice:
    """Random choices, equal for equal seeds."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        """Return whether something of that probability happens."""
        return self._random.random() < probability

    def below(self, limit: int) -> int:
        """Return a number in 0..limit-1."""
        return self._random.randrange(limit)

    def pick(self, choices: Sequence[_T]) -> _T:
        """Return one of the choices."""
        return self._random.choice(choices)

    def some(self, choices: Sequence[_T], count: int) -> list[_T]:
        """Return so many of the choices, at most all, in random order."""
        return self._random.sample(choices, min(count, len(choices)))


@dataclass
class Options:
    """What an object is compiled for, which decides what C can be lowered."""

    cpu: str
    optimisation: str
    redirects: bool


@dataclass
class Values:
    """What can be read and written in a place of a program: ``readable`` are expressions, ``assignable`` variables of
    which some are (name, type).
    """

    readable: list[str] = field(default_factory=list)
    assignable: list[tuple[str, str]] = field(default_factory=list)

    def inner(self) -> "Values":
        """Return what a block inside begins with."""
        return Values([*self.readable], [*self.assignable])


def literal(dice: Dice) -> str:
    """Return a number: small, at an edge of a width, or any."""
    form = dice.below(10)
    if form < 5:
        return str(dice.below(70))
    if form < 6:
        return f"(-{1 + dice.below(40)})"
    value = dice.pick(_EDGES) if form < 8 else dice.below(1 << dice.pick((8, 16, 32, 64)))
    return f"{value:#x}{'ULL' if value >> 31 else ''}"


def expression(dice: Dice, values: Values, options: Options, depth: int = 0) -> str:
    """Return an expression of any integer type."""
    if depth >= _MAX_DEPTH or dice.chance(0.2 + 0.15 * depth):
        return dice.pick(values.readable) if values.readable and dice.chance(0.75) else literal(dice)

    def operand() -> str:
        return expression(dice, values, options, depth + 1)

    form = dice.below(100)
    if form < 40:
        return f"({operand()} {dice.pick(('+', '-', '*', '&', '|', '^'))} {operand()})"
    if form < 50:
        return _shift(dice, operand(), operand())
    if form < 57:
        return _quotient(dice, options, operand(), operand())
    if form < 65:
        kind = dice.pick((*UNSIGNED, *SIGNED))
        return f"(({kind}){operand()} {dice.pick(('<', '<=', '==', '!=', '>', '>='))} ({kind}){operand()})"
    if form < 72:
        return f"({condition(dice, values, options, depth + 1)} ? {operand()} : {operand()})"
    if form < 82:
        return f"({dice.pick((*UNSIGNED, *SIGNED))})({operand()})"
    if form < 87:
        return f"({dice.pick(('-', '~', '!'))} {operand()})"
    if form < 97:
        return _builtin(dice, operand(), operand())
    return f"TABLE({operand()})"


def condition(dice: Dice, values: Values, options: Options, depth: int = 0) -> str:
    """Return a comparison, or several."""
    kind = dice.pick((*UNSIGNED, *SIGNED))
    one = expression(dice, values, options, depth + 1)
    other = literal(dice) if dice.chance(0.5) else expression(dice, values, options, depth + 2)
    if dice.chance(0.25):
        text = f"(({one}) & {1 << dice.below(8)})"
    else:
        text = f"(({kind})({one}) {dice.pick(('<', '<=', '==', '!=', '>', '>='))} ({kind})({other}))"
    if depth < 2 and dice.chance(0.2):
        return f"({text} {dice.pick(('&&', '||'))} {condition(dice, values, options, depth + 1)})"
    return text


def _shift(dice: Dice, value: str, amount: str) -> str:
    kind = dice.pick((*UNSIGNED, *SIGNED))
    bits = 8 * SIZES[kind]
    if dice.chance(0.4):
        amount = str(dice.below(bits))
    elif dice.chance(0.6):
        amount = f"({amount} & {bits - 1})"
    else:  # by anything: in C undefined, here modulo the width, if the compiler cannot know the amount
        amount = f"OPAQUE({amount})"
    return f"(({kind})({value}) {dice.pick(('<<', '>>'))} {amount})"


def _quotient(dice: Dice, options: Options, dividend: str, divisor: str) -> str:
    # BPF divides signed numbers since version 4 only.
    kinds = (*UNSIGNED, *SIGNED) if options.cpu == "v4" else UNSIGNED
    kind = dice.pick(kinds)
    # Narrow types are promoted to int, which is signed.
    wide = f"({'__s' if kind in SIGNED else '__u'}{64 if SIZES[kind] == 8 else 32})"
    # Whatever LLVM knows to be undefined may become what lies on the stack, which differs.
    divisor = str(1 + dice.below(100)) if dice.chance(0.4) else f"OPAQUE({divisor})"
    return f"({wide}({kind})({dividend}) {dice.pick(('/', '%'))} {wide}({kind})({divisor}))"


def _builtin(dice: Dice, one: str, other: str) -> str:
    width = dice.pick((16, 32, 64))
    form = dice.below(7)
    if form == 0:
        return f"__builtin_bswap{width}({one})"
    if form == 1:
        return f"__builtin_popcount{'ll' if width == 64 else ''}({one})"
    if form == 2:
        return f"__builtin_c{dice.pick('lt')}z{'ll' if width == 64 else ''}(OPAQUE({one}))"
    if form == 3:
        return f"ROTATE{max(width, 32)}({one}, {other})"
    kind = dice.pick((*UNSIGNED, *SIGNED))
    if form == 4:
        return f"OVERFLOW({dice.pick(('add', 'sub'))}, {kind}, {one}, {other})"
    return f"{dice.pick(('LEAST', 'GREATEST'))}({kind}, {one}, {other})"
