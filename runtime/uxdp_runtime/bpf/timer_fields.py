"""Where in maps' values timers are, by the object's BTF.

A value has at most one struct bpf_timer, itself or in a structure in it; the verifier sees to that.
Source: kernel/bpf/btf.c, btf_parse_fields
"""

from collections.abc import Iterator
from typing import Final

from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.btf import Btf, Kind

TIMER: Final = "bpf_timer"
TIMER_BYTES: Final = 16
# Of structures in structures; the kernel looks no further either. Source: kernel/bpf/btf.c, MAX_RESOLVE_DEPTH
_MAX_DEPTH: Final = 32


def timer_fields(bpf_object: BpfObject) -> dict[str, int]:
    """Return the byte offset of the timer in a map's value, for each map that has one.

    :raises ObjectError: the BTF is malformed
    """
    btf = bpf_object.btf
    found: dict[str, int] = {}
    for variable in btf.data_section(".maps") if btf is not None else ():
        assert btf is not None  # noqa: S101  # there is a section, so there is BTF
        for member, type_id, _bit in btf.members(btf.resolve(variable.size_or_type)):
            pointer = btf.resolve(type_id)
            if member == "value" and pointer.kind is Kind.PTR:
                offset = next(_timers(btf, pointer.size_or_type, 0, 0), None)
                if offset is not None:
                    found[variable.name] = offset
    return found


def _timers(btf: Btf, type_id: int, offset: int, depth: int) -> Iterator[int]:
    structure = btf.resolve(type_id)
    if structure.kind is not Kind.STRUCT or depth > _MAX_DEPTH:
        return
    if structure.name == TIMER:
        yield offset
        return
    for _name, member_id, bit in btf.members(structure):
        yield from _timers(btf, member_id, offset + bit // 8, depth + 1)
