"""How values lie in memory: BTF types, turned into layouts that read JSON-able values from bytes and write them back.

Conventions are those of bpftool's BTF output: structures and unions are objects of all their members, arrays are
lists, enumerators go by name if they have one, ``char`` arrays that hold text are strings, 128-bit numbers are hex
strings. Three notations differ in the rest:

- NETWORK: fields of type ``__be16``, ``__be32`` and ``__be64``, and nothing else, are in network order, so a port is 80
  and not 20480. Bit fields are numbers. Members of anonymous structures and unions stand in the object around them.
- ADDRESSES: the same, but ``__be32``, ``struct in6_addr`` and ``__u8[6]`` are addresses as people write them.
- BPFTOOL: what bpftool prints. All numbers are as this machine reads them, bit fields are unsigned hex strings,
  variables of a data section are a list. (bpftool also puts the members of anonymous structures under an empty name,
  several of them under the same.)

On the way back all forms of map_text are taken too, and members under an empty name. Missing members are zero. Members
of a union may be given together if they agree.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final

from uxdp_bundle.errors import UxdpError

from . import map_text

_MAX_SEEN_CHARS: Final = 80


class Notation(Enum):
    """How values are written; see the module's table."""

    NETWORK = auto()
    ADDRESSES = auto()
    BPFTOOL = auto()


class ValueShapeError(UxdpError):
    """A value does not fit its type; ``path`` are the names and indices that lead to it, outermost last."""

    def __init__(self, value: object, wanted: str, *, seen: str = "") -> None:
        self.seen = seen or describe(value)
        self.wanted = wanted
        super().__init__(f"{self.seen}, expected {wanted}")
        self.path: list[str] = []

    def within(self, name: str) -> "ValueShapeError":
        """Note that the value lies within something; returns the error itself."""
        self.path.append(name)
        return self

    def place(self) -> str:
        """Return the path as C writes it: ``addr.in6_u.u6_addr8[3]``."""
        text = ""
        for name in reversed(self.path):
            text += name if not text or name.startswith("[") else f".{name}"
        return text


def describe(value: object) -> str:
    """Return a value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= _MAX_SEEN_CHARS else f"{text[:_MAX_SEEN_CHARS]}…"


class Image:
    """Bytes that are being written, and which of their bits were: no bit may be written twice with two values."""

    def __init__(self, initial: bytes) -> None:
        self.data = bytearray(initial)
        self._written = bytearray(len(initial))

    def put(self, offset: int, content: bytes) -> bool:
        """Write whole bytes; return False if what was written there before differs."""
        end = offset + len(content)
        if any(self._written[offset:end]):
            return self._merge(offset, int.from_bytes(content, "little"), (1 << 8 * len(content)) - 1, len(content))
        self.data[offset:end] = content
        self._written[offset:end] = b"\xff" * len(content)
        return True

    def put_bits(self, bit_offset: int, bits: int, value: int) -> bool:
        """Write a bit field; return False if what was written there before differs."""
        offset, shift = divmod(bit_offset, 8)
        return self._merge(offset, value << shift, ((1 << bits) - 1) << shift, (shift + bits + 7) // 8)

    def _merge(self, offset: int, value: int, mask: int, size: int) -> bool:
        end = offset + size
        now = int.from_bytes(self.data[offset:end], "little")
        written = int.from_bytes(self._written[offset:end], "little")
        if (now ^ value) & mask & written:
            return False
        self.data[offset:end] = (now & ~mask | value).to_bytes(size, "little")
        self._written[offset:end] = (written | mask).to_bytes(size, "little")
        return True


class Layout(ABC):
    """One type: ``size`` in bytes, ``leaves`` the number of numbers that one value decodes to."""

    size: int
    leaves: int = 1

    @abstractmethod
    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return the value at an offset."""

    @abstractmethod
    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Write a value at an offset.

        :raises ValueShapeError: the value does not fit
        """

    def _put(self, image: Image, offset: int, content: bytes, seen: object) -> None:
        if not image.put(offset, content):
            raise ValueShapeError(seen, "the same as another member of the union says")

    def _raw(self, image: Image, offset: int, value: Any) -> bool:
        """Write a value that is given by its bytes, as text or as bpftool's list; return False if it is not."""
        content = map_text.hex_list(value, self.size)
        if isinstance(value, str):
            content = map_text.address_or_bytes(value, self.size)
        if content is None:
            return False
        self._put(image, offset, content, value)
        return True


class Number(Layout):
    """An integer, a pointer or a bool; ``network`` if it is kept in network order."""

    def __init__(self, size: int, *, signed: bool = False, network: bool = False, boolean: bool = False) -> None:
        self.size = size
        self._signed = signed
        self._network = network
        self._boolean = boolean
        bits = 8 * size
        self._least, self._limit = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)

    @property
    def is_byte(self) -> bool:
        """Whether this is an unsigned byte, of which arrays are decoded at once."""
        return self.size == 1 and not self._signed and not self._boolean

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return a number, a bool, an address in ADDRESSES, or a hex string for 128 bits."""
        content = data[offset : offset + self.size]
        if self._boolean:
            return any(content)
        if self._network and notation is not Notation.BPFTOOL:
            if notation is Notation.ADDRESSES and self.size == 4:
                return map_text.as_address(content)
            return int.from_bytes(content, "big")
        if self.size > 8:
            return f"{int.from_bytes(content, 'little'):#x}"
        return int.from_bytes(content, "little", signed=self._signed)

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take a number, as number or text, or its bytes."""
        found = map_text.number(value) if isinstance(value, str) else value
        if isinstance(found, bool) and not self._boolean:
            found = None
        if isinstance(found, int):
            if self.size > 8 and self._limit <= found < 1 << 8 * self.size:
                found -= 1 << 8 * self.size  # a signed number of 128 bits, written as its bits
            if not self._least <= found < self._limit or (self._boolean and found > 1):
                raise ValueShapeError(value, self._wanted())
            network = self._network and notation is not Notation.BPFTOOL
            content = int(found).to_bytes(self.size, "big" if network else "little", signed=found < 0)
            self._put(image, offset, content, value)
        elif not self._raw(image, offset, value):
            raise ValueShapeError(value, self._wanted())

    def _wanted(self) -> str:
        if self._boolean:
            return "true or false"
        text = f"a whole number {self._least}..{self._limit - 1}"
        return f"{text}, or an IPv4 address" if self.size == 4 else text


class Bits(Layout):
    """A bit field; ``shift`` is its offset in bits behind the byte offset that a layout is given."""

    def __init__(self, shift: int, bits: int, *, signed: bool) -> None:
        self._shift = shift
        self._bits = bits
        self._signed = signed
        self.size = (shift + bits + 7) // 8

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return a number, in BPFTOOL a hex string."""
        whole = int.from_bytes(data[offset : offset + self.size], "little")
        value = whole >> self._shift & (1 << self._bits) - 1
        if notation is Notation.BPFTOOL:
            return f"{value:#x}"
        return value - (1 << self._bits) if self._signed and value >> self._bits - 1 else value

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take a number; of a signed field in BPFTOOL its bits."""
        found = map_text.number(value) if isinstance(value, str) else value
        signed = self._signed and notation is not Notation.BPFTOOL
        least, limit = (-(1 << self._bits - 1), 1 << self._bits - 1) if signed else (0, 1 << self._bits)
        if not isinstance(found, int) or isinstance(found, bool) or not least <= found < limit:
            raise ValueShapeError(value, f"a whole number {least}..{limit - 1}")
        if not image.put_bits(8 * offset + self._shift, self._bits, found & (1 << self._bits) - 1):
            raise ValueShapeError(value, "the same as another member of the union says")


class Enumeration(Layout):
    """An enum; values without a name are numbers."""

    def __init__(self, size: int, values: Mapping[str, int], *, signed: bool) -> None:
        self.size = size
        self._values = dict(values)
        self._names: dict[int, str] = {}
        for name, value in values.items():
            self._names.setdefault(value, name)
        self._signed = signed
        self._number = Number(size, signed=signed)

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return the enumerator's name, or the number; in BPFTOOL a number is always signed."""
        content = data[offset : offset + self.size]
        value = int.from_bytes(content, "little", signed=self._signed)
        if value in self._names:
            return self._names[value]
        return int.from_bytes(content, "little", signed=True) if notation is Notation.BPFTOOL else value

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take an enumerator's name or a number."""
        if isinstance(value, str):
            named = self._values.get(value, map_text.number(value))
            if named is None:
                if not self._raw(image, offset, value):
                    names = ", ".join(self._values)
                    raise ValueShapeError(value, f"a number or one of: {names}"[: 4 * _MAX_SEEN_CHARS])
                return
            value = named
        elif notation is Notation.BPFTOOL and not self._signed and isinstance(value, int) and value < 0:
            value += 1 << 8 * self.size
        self._number.encode(image, offset, value, notation)


class Array(Layout):
    """An array; ``text`` if its elements are ``char``, so that it may be a string."""

    def __init__(self, element: Layout, count: int, *, text: bool) -> None:
        self.size = element.size * count
        self.leaves = element.leaves * count
        self._element = element
        self._count = count
        self._text = text
        self._bytes = isinstance(element, Number) and element.is_byte

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return a list, or a string for printable text that ends with a zero byte."""
        content = data[offset : offset + self.size]
        if self._text:
            text = self._decode_text(content, notation)
            if text is not None:
                return text
        if self._bytes:
            return map_text.as_mac(content) if notation is Notation.ADDRESSES and self.size == 6 else list(content)
        element = self._element
        return [element.decode(data, offset + i * element.size, notation) for i in range(self._count)]

    def _decode_text(self, content: bytes, notation: Notation) -> str | None:
        text, zero, rest = content.partition(b"\0")
        if not zero or not all(0x20 <= byte < 0x7F for byte in text):
            return None
        # bpftool drops what is behind the text; here nothing is lost.
        return text.decode("ascii") if notation is Notation.BPFTOOL or not any(rest) else None

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take a list of all elements, text if this is one, or the array's bytes."""
        if self._text and isinstance(value, str):
            content = value.encode("utf-8", "surrogatepass")
            if len(content) > self.size:
                raise ValueShapeError(value, f"text of at most {self.size} bytes")
            self._put(image, offset, content.ljust(self.size, b"\0"), value)
            return
        if self._raw(image, offset, value) or self._digits(image, offset, value):
            return
        if not isinstance(value, (list, tuple)) or len(value) != self._count:
            seen = f"{len(value)} elements" if isinstance(value, (list, tuple)) else ""
            raise ValueShapeError(value, f"a list of {self._count} elements or {self.size} bytes as hex", seen=seen)
        for index, item in enumerate(value):
            try:
                self._element.encode(image, offset + index * self._element.size, item, notation)
            except ValueShapeError as error:
                raise error.within(f"[{index}]") from None

    def _digits(self, image: Image, offset: int, value: Any) -> bool:
        content = map_text.hex_digits(value, self.size) if isinstance(value, str) else None
        if content is None:
            return False
        self._put(image, offset, content, value)
        return True


class Record(Layout):
    """A structure or union: members by name, at byte offsets; ``is_in6_addr`` if it is the kernel's IPv6 address."""

    def __init__(self, size: int, members: Mapping[str, tuple[int, Layout]], *, is_in6_addr: bool = False) -> None:
        self.size = size
        self.leaves = sum(layout.leaves for _, layout in members.values()) or 1
        self.members = dict(members)
        self._is_in6_addr = is_in6_addr

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return an object of all members, or an address in ADDRESSES."""
        if self._is_in6_addr and notation is Notation.ADDRESSES:
            return map_text.as_address(data[offset : offset + self.size])
        return {name: layout.decode(data, offset + at, notation) for name, (at, layout) in self.members.items()}

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take an object, whose missing members are zero, or the structure's bytes."""
        if isinstance(value, Mapping):
            for name, item in value.items():
                self._encode_member(image, offset, name, item, notation)
            return
        content = map_text.hex_digits(value, self.size) if isinstance(value, str) else None
        if content is not None:
            self._put(image, offset, content, value)
        elif not self._raw(image, offset, value):
            raise ValueShapeError(value, f"an object with {self._names()}, or {self.size} bytes as hex")

    def _encode_member(self, image: Image, offset: int, name: object, value: Any, notation: Notation) -> None:
        if name == "" and isinstance(value, Mapping):  # as bpftool writes an anonymous member
            self.encode(image, offset, value, notation)
            return
        if not isinstance(name, str) or name not in self.members:
            raise ValueShapeError(name, f"one of the members {self._names()}" if self.members else "an empty object")
        at, layout = self.members[name]
        try:
            layout.encode(image, offset + at, value, notation)
        except ValueShapeError as error:
            raise error.within(name) from None

    def _names(self) -> str:
        return ", ".join(self.members) or "no members"


class Variables(Record):
    """The variables of a data section; bpftool writes a list of objects with one variable each, under its name."""

    def __init__(self, name: str, size: int, members: Mapping[str, tuple[int, Layout]]) -> None:
        super().__init__(size, members)
        self._name = name

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return an object of all variables, in BPFTOOL bpftool's list."""
        values = super().decode(data, offset, notation)
        if notation is Notation.BPFTOOL:
            return {self._name: [{name: value} for name, value in values.items()]}
        return values

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take an object, or bpftool's list; variables that are missing keep what they have."""
        listed = value.get(self._name) if isinstance(value, Mapping) and len(value) == 1 else None
        if isinstance(listed, list):
            for item in listed:
                super().encode(image, offset, item, notation)
        else:
            super().encode(image, offset, value, notation)


class Opaque(Layout):
    """Bytes of which nothing is known but how many they are."""

    def __init__(self, size: int) -> None:
        self.size = size

    def decode(self, data: bytes, offset: int, notation: Notation) -> Any:
        """Return bpftool's list of hex bytes."""
        return map_text.as_hex_list(data[offset : offset + self.size])

    def encode(self, image: Image, offset: int, value: Any, notation: Notation) -> None:
        """Take the bytes as text or as bpftool's list."""
        content = map_text.hex_digits(value, self.size) if isinstance(value, str) else None
        if content is not None:
            self._put(image, offset, content, value)
        elif not self._raw(image, offset, value):
            raise ValueShapeError(value, f"{self.size} bytes as hex, since there is no BTF that describes them")
