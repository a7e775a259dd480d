"""Give the constants of .rodata other values before a program is loaded, and read values from text.

A constant is known by the facts of its object (``Param``: name, type, size); where its bytes are, the symbol table
tells, and whether it has a sign, BTF.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.btf import Btf, Kind
from uxdp_bundle.manifest import Param
from uxdp_bundle.map_definitions import global_data_kind

from ..errors import ParameterError

_BTF_INT_SIGNED = 1 << 24  # include/uapi/linux/btf.h, in the word behind struct btf_type
_BTF_INT_BOOL = 4 << 24
_TRUTH = {"false": 0, "true": 1}


@dataclass(frozen=True, slots=True)
class Constant:
    """New content for one constant: ``data`` goes to byte ``offset`` of the section."""

    name: str
    section: str
    offset: int
    data: bytes


def encode_constants(
    bpf_object: BpfObject, params: Sequence[Param], values: Mapping[str, int | bytes]
) -> tuple[Constant, ...]:
    """Find each constant in an object and encode its value as the object's types have it.

    :param params: the constants that the object has
    :param values: an integer for integer types and enumerations, for any type bytes of exactly its size
    :raises ParameterError: no such constant, an integer that does not fit, bytes of another size
    """
    known = {param.name: param for param in params}
    for name in values:
        if name not in known:
            raise ParameterError(
                f"the bundle has no such constant, but {', '.join(sorted(known)) or 'none'}", context=f"constant {name}"
            )
    btf = bpf_object.btf
    found: list[Constant] = []
    for section in bpf_object.sections if btf is not None else ():
        if btf is None or global_data_kind(section) != "rodata":
            continue
        symbols = bpf_object.global_symbols(section.index)
        for variable in btf.data_section(section.name):
            if variable.name in values and variable.name in symbols:
                data = _encode(btf, variable.size_or_type, known[variable.name], values[variable.name])
                found.append(Constant(variable.name, section.name, symbols[variable.name].value, data))
    return tuple(found)


def parse_value(param: Param, text: str) -> int | bytes:
    """Read a value as people write it: 10, -1, 0x1f, true; for types that are no integers hex bytes in memory order.

    :raises ParameterError: not of that form
    """
    where = f"constant {param.name}"
    if isinstance(param.default, int):
        try:
            return _TRUTH[text] if text in _TRUTH else int(text, 0)
        except ValueError as cause:
            raise ParameterError(f"{text!r}, expected an integer ({param.type})", context=where) from cause
    try:
        return bytes.fromhex(text)
    except ValueError as cause:
        raise ParameterError(
            f"{text!r}, expected the {param.size} bytes of a {param.type} in hex", context=where
        ) from cause


def _encode(btf: Btf, type_id: int, param: Param, value: int | bytes) -> bytes:
    where = f"constant {param.name}"
    if isinstance(value, bytes):
        if len(value) != param.size:
            raise ParameterError(f"{len(value)} bytes, a {param.type} has {param.size}", context=where)
        return value
    found = btf.resolve(type_id)
    if found.kind is Kind.INT:
        signed, least, most = _int_range(found.extra[0], param.size)
    elif found.kind in (Kind.ENUM, Kind.ENUM64):
        # C takes what the compiler's integer type for the enumeration can hold, whether it is named or not.
        signed, least, most = _int_range(_BTF_INT_SIGNED if found.kind_flag else 0, param.size)
    else:
        raise ParameterError(
            f"an integer for a {param.type}", context=where, remedy=f"give its {param.size} bytes in memory order"
        )
    if not least <= value <= most:
        raise ParameterError(f"{value}, a {param.type} holds {least}..{most}", context=where)
    return value.to_bytes(param.size, sys.byteorder, signed=signed)


def _int_range(encoding: int, size: int) -> tuple[bool, int, int]:
    if encoding & _BTF_INT_BOOL:
        return False, 0, 1
    bits = 8 * size
    if encoding & _BTF_INT_SIGNED:
        return True, -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return False, 0, (1 << bits) - 1
