"""Damage a frame: cut it, flip its bits, swap or overwrite its fields, plant a program's constants in it.

A mutation takes a draft, changes it in place and returns a note that says what it did. Which fields there are is known
from the layers that the draft was built from.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from .constants import Steering
from .headers import FIELDS, Field, checksum

_T = TypeVar("_T")
_HEADERS_END: Final = 96  # bit flips beyond the headers hit payload, which few programs look at


@dataclass(slots=True)
class Draft:
    """A frame in the making; ``layers`` are names (keys of FIELDS) and offsets, outermost first.

    No mutation cuts it to fewer than ``min_length`` bytes.
    """

    data: bytearray
    layers: list[tuple[str, int]]
    min_length: int


class Dice:
    """Random choices that are the same for the same seed."""

    def __init__(self, seed: int) -> None:
        generator = random.Random(seed)  # noqa: S311 (reproducible on purpose)
        self._random = generator.random
        self.bits = generator.getrandbits
        self.bytes = generator.randbytes

    def chance(self, probability: float) -> bool:
        """Return whether something of that probability happens."""
        return self._random() < probability

    def below(self, limit: int) -> int:
        """Return a number in 0..limit-1."""
        return int(self._random() * limit)

    def pick(self, choices: Sequence[_T]) -> _T:
        """Return one of the choices."""
        return choices[int(self._random() * len(choices))]


Mutation = Callable[[Draft, Dice, Steering], str]


def mutate(draft: Draft, dice: Dice, steering: Steering) -> list[str]:
    """Apply one to three mutations; the notes say which."""
    notes = [dice.pick(_MUTATIONS)(draft, dice, steering)]
    while len(notes) < 3 and dice.chance(0.3):
        notes.append(dice.pick(_MUTATIONS)(draft, dice, steering))
    if dice.chance(0.5):
        _heal(draft)
    return notes


def cut_at_header(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Cut where a header begins, or within two bytes of it."""
    del steering
    _name, offset = dice.pick(draft.layers)
    return _cut(draft, offset + dice.pick((-2, -1, 0, 0, 1, 2, 4, 8)))


def cut_anywhere(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Cut at any byte."""
    del steering
    return _cut(draft, dice.below(len(draft.data)))


def flip_bits(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Flip one to four bits in the headers."""
    del steering
    count = 1 + dice.below(4)
    for _ in range(count):
        place = dice.below(min(len(draft.data), _HEADERS_END) * 8)
        draft.data[place >> 3] ^= 1 << (place & 7)
    return f"{count} bits flipped"


def plant_constant(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Write one of the program's constants into a field of its size, or a long one anywhere."""
    if steering.strings and dice.chance(0.2):
        string = dice.pick(steering.strings)
        offset = dice.pick(draft.layers)[1] if dice.chance(0.6) else dice.below(len(draft.data))
        end = min(len(draft.data), offset + len(string))
        draft.data[offset:end] = string[: end - offset]
        return f"constant of {len(string)} bytes at {offset}"
    name, offset, field = _field(draft, dice)
    constants = steering.of_size.get(field.size, ())
    if not constants:
        return set_extreme(draft, dice, steering)
    _write(draft, offset, dice.pick(constants))
    return f"constant in {name}+{field.offset}"


def swap_fields(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Swap two fields of the same size in one header."""
    name, offset, field = _field(draft, dice)
    others = [other for other in FIELDS[name] if other.size == field.size and other.offset != field.offset]
    if not others:
        return flip_bits(draft, dice, steering)
    start = offset - field.offset
    other = start + dice.pick(others).offset
    one, two = (bytes(draft.data[place : place + field.size]) for place in (offset, other))
    _write(draft, offset, two)
    _write(draft, other, one)
    return f"{name}+{offset - start} and +{other - start} swapped"


def set_extreme(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Set a field to its least, its greatest, a random value, or one more or less than it was."""
    del steering
    name, offset, field = _field(draft, dice)
    limit = 1 << 8 * field.size
    now = int.from_bytes(draft.data[offset : offset + field.size], "big")
    value = dice.pick((0, 1, limit - 1, limit >> 1, now + 1, now - 1, dice.bits(8 * field.size))) % limit
    _write(draft, offset, value.to_bytes(field.size, "big"))
    return f"{name}+{field.offset} set to {value:#x}"


def lie_about_length(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Make a length say something else than the frame holds."""
    places = [
        (name, offset + field.offset, field)
        for name, offset in draft.layers
        for field in FIELDS[name]
        if field.kind == "length"
    ]
    if not places:
        return grow(draft, dice, steering)
    name, offset, field = dice.pick(places)
    now = int.from_bytes(draft.data[offset : offset + field.size], "big")
    limit = 1 << 8 * field.size
    value = (now + dice.pick((-now, -20, -8, -4, -1, 1, 4, 8, 40, dice.below(1500)))) % limit
    _write(draft, offset, value.to_bytes(field.size, "big"))
    return f"{name} length {value}"


def grow(draft: Draft, dice: Dice, steering: Steering) -> str:
    """Append bytes behind what the headers count."""
    del steering
    count = 1 + dice.below(64)
    draft.data += dice.bytes(count)
    return f"{count} bytes behind"


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(cut_at_header, cut_at_header, cut_anywhere, flip_bits, plant_constant, plant_constant, plant_constant),
    *(swap_fields, set_extreme, set_extreme, lie_about_length, grow),
)


def _cut(draft: Draft, length: int) -> str:
    length = min(max(length, draft.min_length), len(draft.data))
    del draft.data[length:]
    return f"cut to {length}"


def _field(draft: Draft, dice: Dice) -> tuple[str, int, Field]:
    """Return a field of the draft: layer, offset in the frame, field."""
    name, offset = dice.pick(draft.layers)
    field = dice.pick(FIELDS[name])
    return name, offset + field.offset, field


def _write(draft: Draft, offset: int, content: bytes) -> None:
    """Overwrite bytes, as far as the frame reaches."""
    end = min(len(draft.data), offset + len(content))
    if offset < end:
        draft.data[offset:end] = content[: end - offset]


def _heal(draft: Draft) -> None:
    """Correct the checksums of IPv4 headers, so that a receiver which checks them looks further."""
    for name, offset in draft.layers:
        length = (draft.data[offset] & 0xF) * 4 if name == "ipv4" and offset < len(draft.data) else 0
        if length >= 20 and offset + length <= len(draft.data):
            draft.data[offset + 10 : offset + 12] = b"\0\0"
            check = checksum(bytes(draft.data[offset : offset + length]))
            draft.data[offset + 10 : offset + 12] = check.to_bytes(2, "big")
