"""Make new inputs of old ones: frames changed by their headers, by bytes, by what the program compared; maps changed in
between.

An input is a list of steps. The program's constants are planted where fields are, as the generator of frames does it;
keys of maps are those that are there, or parts of the input's own frames, so that a program may find them.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from uxdp_bundle.manifest import MapDefinition

from ..frames.constants import Steering
from ..frames.generate import ETH_HLEN, MAX_FRAME_BYTES, Frame
from ..frames.layers import layers_of
from ..frames.mutate import Dice, Draft, mutate
from ..inner_stores import as_made
from ..map_file import Contents
from ..steps import MapChange, Step
from ..stores import Stores

MAX_STEPS: Final = 8
# Maps whose elements a control plane may set to anything. (Programs and devices are not anything.)
_PUSHED: Final = frozenset({"queue", "stack"})
_OUTERS: Final = frozenset({"array_of_maps", "hash_of_maps"})
_CHANGED: Final = (
    frozenset({"array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "lpm_trie"})
    | _PUSHED
    | _OUTERS
)
_INDEXED: Final = frozenset({"array", "percpu_array", "array_of_maps"})
_INNER_SIZES: Final = (0, 0, 0, 1, 3, 16)  # 0: the template's
_PREFIX_BYTES: Final = 4  # of an LPM trie's key: the prefix's length
_LISTED_ENTRIES: Final = 4096  # larger maps are not searched for their keys
_MAX_KNOWN: Final = 256
_FLAGS: Final = (*((0,) * 24), 1, 1, 2, 2, 3, 4)
_SMALL: Final = (0, 1, 2, 3, 4, 6, 8, 14, 17, 32, 63, 64, 127, 128, 255, 256, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
# Where headers usually have what keys are made of: addresses, ports, protocol, MAC addresses, type.
_KEY_OFFSETS: Final = (0, 6, 12, 14, 22, 23, 26, 30, 34, 36, 38, 54, 56)
_MAX_METADATA_WORDS: Final = 8
_RESTORED_SHARE: Final = 0.4
_MAX_PLACES: Final = 64
_FEW_PLACES: Final = 3
_ORDERS: Final[tuple[Literal["big", "little"], ...]] = ("little", "big")


class Mutator:
    """Makes inputs for one program; equal dice make equal ones."""

    def __init__(self, dice: Dice, steering: Steering, maps: Iterable[MapDefinition], contents: Contents) -> None:
        """Prepare.

        :param maps: the program's
        :param contents: what they begin with
        """
        self._dice = dice
        self._steering = steering
        self._maps = [one for one in maps if one.type in _CHANGED and not one.name.startswith(".")]
        self._known: dict[str, list[bytes]] = defaultdict(list)
        # What a change has put out of order another one shall put in order again.
        changed = {one.name for one in self._maps}
        self._original = [
            MapChange(name, key, value)
            for name, items in contents.items()
            for key, value in items
            if name in changed or name.startswith(".")
        ]
        for name, items in contents.items():
            self._known[name] += [key for key, _value in items][:_MAX_KNOWN]

    def mutate(self, steps: Sequence[Step], other: Sequence[Step], stores: Stores) -> list[Step]:
        """Return a changed copy of an input.

        :param other: another input, to take parts of
        :param stores: the maps as they are
        """
        dice = self._dice
        made = list(steps)
        for _ in range(1 + dice.below(3)):
            form = dice.below(20)
            index = dice.below(len(made))
            step = made[index]
            if form < 12:
                made[index] = self._frame(step, other) if isinstance(step, Frame) else self.change(made, stores)
            elif form < 14:
                made.insert(index, step)
            elif form < 16:
                made[index:index] = other[dice.below(len(other)) :]
            elif form < 17 and len(made) > 1:
                del made[index]
            else:
                made.insert(index, self.change(made, stores))
        return made[:MAX_STEPS]

    def change(self, steps: Sequence[Step], stores: Stores) -> Step:
        """Return a change of one of the maps; if there are none, a frame."""
        dice = self._dice
        if self._original and dice.chance(_RESTORED_SHARE):
            return dice.pick(self._original)
        sections = stores.sections
        which = dice.below(max(1, len(self._maps) + len(sections)))
        if which < len(self._maps):
            return self._element(self._maps[which], steps, stores)
        if not sections:
            return Frame(dice.bytes(ETH_HLEN + dice.below(50)), description="random bytes")
        name = sections[which - len(self._maps)]
        value = self._value(bytes(stores.section(name)), steps)
        return MapChange(name, bytes(4), value)

    def solve(
        self, steps: Sequence[Step], compared: Iterable[tuple[int, int]], limit: int = 64
    ) -> Iterator[list[Step]]:
        """Yield inputs in which what was compared is what it was compared with, or next to it, wherever it stands.

        :param limit: how many at most
        """
        dice = self._dice
        count = 0
        for pair in dict.fromkeys(compared):
            for value, wanted in (pair, pair[::-1]):
                for size in (8, 4, 2, 1):
                    if value >> 8 * size or (size == 8 and value >> 32 == 0 and value):
                        continue
                    for order in _ORDERS:
                        old = value.to_bytes(size, order)
                        for number in (wanted, wanted + dice.pick((1, -1))):
                            new = (number & (1 << 8 * size) - 1).to_bytes(size, order)
                            for made in self._replaced(steps, old, new):
                                yield made
                                count += 1
                                if count == limit:
                                    return

    def _replaced(self, steps: Sequence[Step], old: bytes, new: bytes) -> Iterator[list[Step]]:
        """Yield inputs in which one occurrence of some bytes in a frame is replaced, of many a few."""
        places: list[tuple[int, Frame, int]] = []
        for index, step in enumerate(steps):
            if isinstance(step, Frame):
                at = step.data.find(old)
                while at >= 0 and len(places) < _MAX_PLACES:
                    places.append((index, step, at))
                    at = step.data.find(old, at + 1)
        if len(places) > _FEW_PLACES:
            places = [self._dice.pick(places) for _ in range(_FEW_PLACES)]
        for index, step, at in places if old != new else ():
            made = list(steps)
            data = step.data[:at] + new + step.data[at + len(old) :]
            made[index] = Frame(data, metadata=step.metadata, description=f"{len(new)} bytes as compared at {at}")
            yield made

    def _frame(self, frame: Frame, other: Sequence[Step]) -> Frame:
        dice = self._dice
        form = dice.below(20)
        if form == 0:
            return Frame(
                frame.data, metadata=dice.bytes(4 * dice.below(_MAX_METADATA_WORDS + 1)), description="metadata"
            )
        data = bytearray(frame.data)
        if form < 11:
            notes = mutate(Draft(data, layers_of(frame.data), ETH_HLEN), dice, self._steering)
        elif form < 17:
            notes = [self._bytes(data)]
        else:
            donors = [step for step in other if isinstance(step, Frame)]
            donor = dice.pick(donors).data if donors else frame.data
            at = dice.below(min(len(data), len(donor)))
            data[at:] = donor[at:]
            notes = [f"spliced at {at}"]
        del data[MAX_FRAME_BYTES:]
        data += bytes(max(0, ETH_HLEN - len(data)))
        return Frame(bytes(data), metadata=frame.metadata, description=", ".join(notes))

    def _bytes(self, data: bytearray) -> str:
        """Change bytes anywhere, most of them where headers are."""
        dice = self._dice
        at = dice.below(min(len(data), dice.pick((64, 128, len(data)))))
        form = dice.below(6)
        if form == 0:
            data[at] ^= 1 << dice.below(8)
            return f"bit at {at}"
        if form == 1:
            data[at] = dice.bits(8)
            return f"byte at {at}"
        if form == 2:
            size = dice.pick((1, 2, 4))
            number = dice.pick(_SMALL) & (1 << 8 * size) - 1
            data[at : at + size] = number.to_bytes(size, dice.pick(("big", "little")))[: len(data) - at]
            return f"{number} at {at}"
        if form == 3:
            count = dice.pick((1, 2, 4, 8, 20, 40))
            del data[at : at + count]
            return f"{count} bytes cut out at {at}"
        if form == 4:
            piece = bytes(data[at : at + dice.pick((1, 2, 4, 8, 20, 40))])
            to = dice.below(len(data))
            data[to:to] = piece
            return f"{len(piece)} bytes of {at} again at {to}"
        size = dice.pick((1, 2, 4))
        number = int.from_bytes(data[at : at + size], "big") + dice.pick((-2, -1, 1, 2))
        end = min(len(data), at + size)
        data[at:end] = (number % (1 << 8 * (end - at))).to_bytes(end - at, "big")
        return f"number at {at} moved"

    def _element(self, definition: MapDefinition, steps: Sequence[Step], stores: Stores) -> MapChange:
        dice = self._dice
        store = stores[definition.name]
        if definition.type in _PUSHED:
            return MapChange(definition.name, b"", self._value(bytes(store.value_bytes), steps), dice.pick(_FLAGS))
        key = self._key(definition, steps, stores)
        if dice.chance(0.2):
            return MapChange(definition.name, key, None)
        if definition.type in _OUTERS:
            inner = definition.inner.type if definition.inner is not None else ""
            # Per-CPU arrays of other sizes than their template's the kernel takes, and looks up beyond their ends.
            made = dice.pick(_INNER_SIZES) if inner != "percpu_array" else 0
            return MapChange(definition.name, key, as_made(made), dice.pick(_FLAGS))
        present = store.lookup(key) if dice.chance(0.6) and store.is_readable else None
        value = self._value(present if present is not None else bytes(store.value_bytes), steps)
        known = self._known[definition.name]
        if len(known) < _MAX_KNOWN:
            known.append(key)
        else:
            known[dice.below(_MAX_KNOWN)] = key
        return MapChange(definition.name, key, value, dice.pick(_FLAGS))

    def _key(self, definition: MapDefinition, steps: Sequence[Step], stores: Stores) -> bytes:
        dice, size = self._dice, definition.key_size
        if definition.type in _INDEXED:
            if dice.chance(0.05):
                return dice.bytes(size)
            return struct.pack("=I", dice.below(dice.pick((1, 4, 64, 1 << 32))) % definition.max_entries)
        known = self._known[definition.name]
        store = stores[definition.name]
        if definition.max_entries <= _LISTED_ENTRIES and dice.chance(0.1) and store.is_readable:
            known += [key for key, _value in store.page(None, 8)[0]]
        form = dice.below(10)
        if known and form < 5:
            key = bytearray(dice.pick(known))
            if dice.chance(0.2):
                key[dice.below(size)] ^= 1 << dice.below(8)
            return bytes(key)
        key = bytearray(self._part(steps, size) if form < 8 else dice.bytes(size) if form < 9 else bytes(size))
        if definition.type == "lpm_trie":
            data = self._part(steps, size - _PREFIX_BYTES)
            length = dice.pick((0, 8, 16, 24, 32, 64, 8 * len(data), dice.below(8 * len(data) + 2)))
            return struct.pack("=I", length) + data
        return bytes(key)

    def _value(self, value: bytes, steps: Sequence[Step]) -> bytes:
        """Return a value with some words of it changed."""
        dice = self._dice
        made = bytearray(value)
        for _ in range(1 + dice.below(4)):
            size = dice.pick((1, 2, 4, 8))
            if len(made) < size:
                continue
            at = dice.below(len(made) // size) * size
            form = dice.below(10)
            if form < 4:
                word = (dice.pick(_SMALL) & (1 << 8 * size) - 1).to_bytes(size, "little")
            elif form < 6 and self._steering.of_size.get(size):
                word = dice.pick(self._steering.of_size[size])
            elif form < 8:
                word = self._part(steps, size)
            else:
                word = dice.bytes(size)
            made[at : at + size] = word
        return bytes(made)

    def _part(self, steps: Sequence[Step], size: int) -> bytes:
        """Return a part of one of the frames, filled up with zeros."""
        frames = [step for step in steps if isinstance(step, Frame)]
        if not frames:
            return self._dice.bytes(size)
        at = self._dice.pick(_KEY_OFFSETS)
        return self._dice.pick(frames).data[at : at + size].ljust(size, b"\0")
