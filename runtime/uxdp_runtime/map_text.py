"""Text that stands for a value in a map: numbers, addresses, prefixes, and plain bytes.

What a text means depends on the size that it has to fill, never on a guess: ``10.0.0.1`` fills 4 bytes,
``2001:db8::1`` 16, ``02:00:00:00:00:01`` 6, all as they lie in a packet. ``0a 00 00 01`` is that many bytes, two hex
digits each. ``0x0a000001`` is a number where a number is wanted, and bytes in that order where bytes are.
"""

import ipaddress
import re
from typing import Final

_NUMBER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+)")
_HEX_DIGITS: Final = re.compile(r"0[xX]((?:[0-9a-fA-F]{2})+)")
_HEX_BYTES: Final = re.compile(r"[0-9a-fA-F]{2}(?:[ \t]+[0-9a-fA-F]{2})+")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(?:([:-])[0-9a-fA-F]{2})(?:\1[0-9a-fA-F]{2}){4}")
_HEX_BYTE: Final = re.compile(r"0[xX][0-9a-fA-F]{1,2}")
# Longer numbers do not fit any field; Python refuses to convert very long ones.
_MAX_NUMBER_CHARS: Final = 64

_IPV4_BYTES: Final = 4
_IPV6_BYTES: Final = 16
_MAC_BYTES: Final = 6
_PREFIX_LENGTH_BYTES: Final = 4  # struct bpf_lpm_trie_key: __u32 prefixlen, then the address


def number(text: str) -> int | None:
    """Return a decimal or, after 0x, hexadecimal number; None if the text is none."""
    text = text.strip()
    if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
        return None
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    return sign * (int(digits, 16) if digits[:2] in ("0x", "0X") else int(digits))


def address_or_bytes(text: str, size: int) -> bytes | None:
    """Return an address or hex bytes that fill ``size`` bytes; None if the text is neither."""
    text = text.strip()
    if _HEX_BYTES.fullmatch(text):
        content = bytes.fromhex(text)
        return content if len(content) == size else None
    if size == _MAC_BYTES and _MAC.fullmatch(text):
        return bytes.fromhex(text.replace("-", ":").replace(":", ""))
    if size in (_IPV4_BYTES, _IPV6_BYTES):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return None
        # A scope ("fe80::1%eth0") is no part of the address.
        return address.packed if len(address.packed) == size and "%" not in text else None
    return None


def hex_digits(text: str, size: int) -> bytes | None:
    """Return the bytes of ``0x…`` in the order of the digits, if they are ``size``."""
    match = _HEX_DIGITS.fullmatch(text.strip())
    if match is None or len(match[1]) != 2 * size:
        return None
    return bytes.fromhex(match[1])


def prefix(text: str, size: int) -> bytes | None:
    """Return the key of an LPM trie for ``10.0.0.0/8`` or ``2001:db8::/32``; None if the text is no such prefix.

    Bits behind the prefix are kept: the trie ignores them.
    """
    if "/" not in text:
        return None
    try:
        interface = ipaddress.ip_interface(text.strip())
    except ValueError:
        return None
    packed = interface.packed
    if len(packed) + _PREFIX_LENGTH_BYTES != size or "%" in text:
        return None
    return interface.network.prefixlen.to_bytes(_PREFIX_LENGTH_BYTES, "little") + packed


def hex_list(value: object, size: int) -> bytes | None:
    """Return the bytes of a list of ``"0x00"`` strings, as bpftool prints raw values, if they are ``size``."""
    if not isinstance(value, list) or len(value) != size:
        return None
    if not all(isinstance(item, str) and _HEX_BYTE.fullmatch(item) for item in value):
        return None
    return bytes(int(item, 16) for item in value)


def record(value: object) -> bytes | None:
    """Return bytes of any number: of hex digits, with spaces between bytes or behind 0x or not, or bpftool's list."""
    if isinstance(value, list):
        return hex_list(value, len(value))
    if not isinstance(value, str):
        return None
    try:
        return bytes.fromhex(value.strip().removeprefix("0x"))
    except ValueError:
        return None


def as_hex_list(data: bytes) -> list[str]:
    """Return bytes the way bpftool prints raw values in JSON."""
    return [f"0x{byte:02x}" for byte in data]


def as_mac(data: bytes) -> str:
    """Return a MAC address as text."""
    return data.hex(":")


def as_address(data: bytes) -> str:
    """Return 4 or 16 bytes as an IPv4 or IPv6 address."""
    return str(ipaddress.ip_address(data))
