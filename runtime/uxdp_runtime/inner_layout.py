"""What people write for a map in a map of maps: the name of a declared map, or {"max_entries": 1000} for a new one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .bpf.inner_maps import MADE
from .inner_stores import as_made, made_of
from .map_layout import Image, Layout, Notation, ValueShapeError

_MEMBER: Final = "max_entries"


class InnerMap(Layout):
    """The value of a map of maps."""

    size = 4

    def __init__(self, names: Sequence[str]) -> None:
        """Know the declared maps, in the order of their numbers."""
        self._names = tuple(names)

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return a declared map's name, or how many elements one has that was made."""
        value = data[offset : offset + self.size]
        max_entries = made_of(value)
        if max_entries is not None:
            return {_MEMBER: max_entries}
        number = int.from_bytes(value, "little")
        return self._names[number - 1] if 1 <= number <= len(self._names) else number

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take a declared map's name or number, or an object with the number of elements; {}: the template's."""
        if isinstance(value, str) and value in self._names:
            content = (self._names.index(value) + 1).to_bytes(self.size, "little")
        elif isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MADE:
            content = value.to_bytes(self.size, "little")
        elif isinstance(value, Mapping) and value.keys() <= {_MEMBER}:
            max_entries = value.get(_MEMBER, 0)
            if not isinstance(max_entries, int) or isinstance(max_entries, bool) or not 0 <= max_entries < MADE:
                raise ValueShapeError(max_entries, f"{_MEMBER} of 0..{MADE - 1}")
            content = as_made(max_entries)
        else:
            known = ", ".join(self._names)
            raise ValueShapeError(value, f'{{"{_MEMBER}": …}} for a new map, or a declared map: {known}')
        self._put(image, offset, content, value)
