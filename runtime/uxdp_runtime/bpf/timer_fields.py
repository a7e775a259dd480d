"""Where in maps' values timers and locks are, by the object's BTF, and what else there is that no copy may touch.

A value has at most one struct bpf_timer and one struct bpf_spin_lock, itself or in a structure in it; the verifier sees
to that. Source: kernel/bpf/btf.c, btf_parse_fields
"""

from collections.abc import Iterator, Mapping
from typing import Final

from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.btf import Btf, Kind

TIMER: Final = "bpf_timer"
TIMER_BYTES: Final = 16
# Of structures in structures; the kernel looks no further either. Source: kernel/bpf/btf.c, MAX_RESOLVE_DEPTH
_MAX_DEPTH: Final = 32


LOCK: Final = "bpf_spin_lock"
# Fields of the kernel's own that native code has not got. Pointers to its objects are told by a tag of their type.
_REFUSED: Final = frozenset(
    {"bpf_list_head", "bpf_rb_root", "bpf_refcount", "bpf_wq", "bpf_res_spin_lock", "bpf_task_work"}
)
_POINTER_TAGS: Final = frozenset({"kptr", "kptr_untrusted", "percpu_kptr", "uptr"})


def timer_fields(bpf_object: BpfObject) -> dict[str, int]:
    """Return the byte offset of the timer in a map's value, for each map that has one.

    :raises ObjectError: the BTF is malformed
    """
    return _offsets(bpf_object, TIMER)


def lock_fields(bpf_object: BpfObject) -> dict[str, int]:
    """Return the byte offset of the struct bpf_spin_lock in a map's value, for each map that has one.

    :raises ObjectError: the BTF is malformed
    """
    return _offsets(bpf_object, LOCK)


def refused_fields(bpf_object: BpfObject) -> dict[str, str]:
    """Return what makes a map's values more than bytes natively, by map: ``kptr``, ``bpf_list_head``.

    In maps of maps, timers and locks of the inner maps do, too.
    """
    found: dict[str, str] = {}
    btf = bpf_object.btf
    for name, members in _maps(bpf_object):
        assert btf is not None  # noqa: S101  # it describes the maps
        wanted = _REFUSED | _POINTER_TAGS
        if "values" in members:
            target = btf.resolve(btf.resolve(btf.resolve(members["values"]).extra[0]).size_or_type)
            members = {member: kind for member, kind, _bit in btf.members(target)} if target.kind is Kind.STRUCT else {}
            wanted |= {TIMER, LOCK}
        pointer = btf.resolve(members["value"]) if "value" in members else None
        if pointer is not None and pointer.kind is Kind.PTR:
            field = next((what for what, _at in _fields(btf, pointer.size_or_type, 0, 0) if what in wanted), None)
            if field is not None:
                found[name] = field
    return found


def _maps(bpf_object: BpfObject) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield the maps' definitions: types of their members by name."""
    btf = bpf_object.btf
    for variable in btf.data_section(".maps") if btf is not None else ():
        assert btf is not None  # noqa: S101  # there is a section, so there is BTF
        yield variable.name, {member: kind for member, kind, _bit in btf.members(btf.resolve(variable.size_or_type))}


def _offsets(bpf_object: BpfObject, wanted: str) -> dict[str, int]:
    btf = bpf_object.btf
    found: dict[str, int] = {}
    for name, members in _maps(bpf_object):
        assert btf is not None  # noqa: S101  # it describes the maps
        pointer = btf.resolve(members["value"]) if "value" in members else None
        if pointer is not None and pointer.kind is Kind.PTR:
            fields = _fields(btf, pointer.size_or_type, 0, 0)
            offset = next((at for what, at in fields if what == wanted), None)
            if offset is not None:
                found[name] = offset
    return found


def _fields(btf: Btf, type_id: int, offset: int, depth: int) -> Iterator[tuple[str, int]]:
    """Yield the special fields of a value, and where they are: the structure's name, or ``kptr`` and the like."""
    structure = btf.resolve(type_id)
    if structure.kind is Kind.ARRAY and depth <= _MAX_DEPTH:
        yield from _fields(btf, structure.extra[0], offset, depth + 1)
    if structure.kind is Kind.PTR:
        tag = btf.type(structure.size_or_type) if structure.size_or_type else None
        if tag is not None and tag.kind is Kind.TYPE_TAG and tag.name in _POINTER_TAGS:
            yield tag.name, offset
    if structure.kind is not Kind.STRUCT or depth > _MAX_DEPTH:
        return
    if structure.name in _REFUSED | {TIMER, LOCK}:
        yield structure.name, offset
        return
    for _name, member_id, bit in btf.members(structure):
        yield from _fields(btf, member_id, offset + bit // 8, depth + 1)
