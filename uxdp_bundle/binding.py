"""Bind: show that what a bundle claims is what its object holds, and that the object is what its IR lowers to.

The kernel will verify the object, but native code is compiled from the IR. So nothing of a bundle is used before

1. the facts derived from the object equal the manifest's (a signed manifest may still be wrong), and
2. the IR, lowered again by this LLVM, gives the same object, byte for byte in everything a loader looks at.

Another LLVM version may lower the same IR to other code. Then the relowered object must have the same maps, constants
and programs, and it must pass the kernel's verifier besides the original: the bundle is bound only as far as
``must_reverify`` tells.
"""

from dataclasses import InitVar, dataclass, fields, is_dataclass
from enum import Enum
from itertools import zip_longest

from .authentication import AuthenticBundle
from .bpf_object import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHN_LORESERVE,
    SHN_UNDEF,
    SHT_NULL,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    STT_FILE,
    BpfObject,
    Section,
    Symbol,
)
from .errors import BindingError
from .facts import ObjectFacts, object_facts
from .lowering import LoweredObject, lower_as
from .manifest import Lowering, Manifest, Program
from .map_definitions import global_data_kind
from .shim import encode_shim

_MAKER = object()
_TABLES = frozenset({SHT_NULL, SHT_STRTAB, SHT_SYMTAB, SHT_REL, SHT_RELA})


class Binding(Enum):
    """How an object and its IR belong together."""

    EQUAL = "equal"  # lowering the IR gave the object
    MUST_REVERIFY = "must-reverify"  # another LLVM: the relowered object has to pass the kernel's verifier as well
    NO_IR = "no-ir"  # clang made the object; there is nothing but bytecode


@dataclass(frozen=True, eq=False)
class BoundBundle:
    """A bundle whose manifest, object and IR are one thing; made by ``bind`` alone.

    ``ir`` is LLVM bitcode, None for NO_IR; ``relowered`` is set only for MUST_REVERIFY.
    """

    authentic: AuthenticBundle
    facts: ObjectFacts
    binding: Binding
    ir: bytes | None
    relowered: bytes | None
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("a BoundBundle is made by bind() alone")

    def __init_subclass__(cls) -> None:
        raise TypeError("BoundBundle cannot be derived from")


def bind(authentic: AuthenticBundle) -> BoundBundle:
    """Derive the object's facts and compare them with the manifest, lower the IR and compare it with the object.

    :raises BindingError: they differ; ``context`` names the first difference
    :raises LoweringError: the IR breaks a rule, or LLVM cannot lower it
    :raises ObjectError: the object is malformed
    """
    bundle = authentic.bundle
    obj = bytes(bundle.object)
    facts = object_facts(obj)
    _check_manifest(bundle.manifest, facts)
    if bundle.member("shim") != encode_shim(facts.accesses):
        raise BindingError("the shim does not name the context accesses of the object", context=f"{bundle.path}: shim")
    lowering = bundle.manifest.build.lowering
    has_ir = bundle.find("ir") is not None
    if has_ir != (lowering is not None):
        raise BindingError(
            "there must be an IR member exactly if the manifest says how it was lowered",
            context=f"{bundle.path}: build",
        )
    _check_lowering(bundle.manifest, lowering)
    if lowering is None:
        return BoundBundle(authentic, facts, Binding.NO_IR, None, None, _MAKER)
    ir = bundle.member("ir")
    relowered = lower_as(lowering, ir)
    difference = _first_difference(obj, relowered.object)
    if difference is None:
        return BoundBundle(authentic, facts, Binding.EQUAL, ir, None, _MAKER)
    if relowered.llvm == lowering.llvm:
        raise BindingError(
            f"LLVM {relowered.llvm} lowers the IR to another object: {difference} differs",
            context=bundle.path,
            remedy="do not use it: its publisher must build it again with uxdp-cc",
        )
    _check_relowered(obj, facts, relowered, lowering.llvm, bundle.path)
    return BoundBundle(authentic, facts, Binding.MUST_REVERIFY, ir, relowered.object, _MAKER)


def _check_manifest(manifest: Manifest, facts: ObjectFacts) -> None:
    """Compare everything derivable; the manifest's order counts too."""
    if not facts.programs:
        raise BindingError("the object holds no XDP program", context="manifest.programs")
    for name, claimed, derived in (
        ("programs", manifest.programs, facts.programs),
        ("maps", manifest.maps, facts.maps),
        ("params", manifest.params, facts.params),
        ("xdp_md", manifest.xdp_md, facts.xdp_md),
        ("requirements.kernel", manifest.requirements.kernel, facts.kernel),
    ):
        if len(claimed) != len(derived):
            raise BindingError(f"{len(claimed)} claimed, the object has {len(derived)}", context=f"manifest.{name}")
        for index, (one, other) in enumerate(zip(claimed, derived, strict=True)):
            if one != other:
                raise BindingError(_how(one, other), context=f"manifest.{name}[{index}]")


def _how(claimed: object, derived: object) -> str:
    """Say in which field two records differ."""
    for record_field in fields(claimed) if is_dataclass(claimed) else ():
        one, other = getattr(claimed, record_field.name), getattr(derived, record_field.name)
        if one != other:
            return f"{record_field.name} {one!r} claimed, the object has {other!r}"
    return f"{claimed!r} claimed, the object has {derived!r}"


def _check_lowering(manifest: Manifest, lowering: Lowering | None) -> None:
    """Compare what the manifest says twice."""
    requirements = manifest.requirements
    llvm = 0 if lowering is None else lowering.llvm.partition(".")[0]
    if str(requirements.llvm) != str(llvm):
        raise BindingError(
            f"LLVM {requirements.llvm} claimed, build.lowering says {llvm}", context="manifest.requirements.llvm"
        )
    if lowering is not None and requirements.mcpu != lowering.cpu:
        raise BindingError(
            f"{requirements.mcpu!r} claimed, build.lowering says {lowering.cpu!r}", context="manifest.requirements.mcpu"
        )


def _check_relowered(obj: bytes, facts: ObjectFacts, relowered: LoweredObject, made_by: str, path: str) -> None:
    """Compare what users of the relowered object rely on: everything but its code."""
    again = object_facts(relowered.object)
    other = None
    if facts.license != again.license:
        other = "license"
    elif facts.maps != again.maps or _data(BpfObject(obj)) != _data(BpfObject(relowered.object)):
        other = "maps or data"
    elif facts.params != again.params:
        other = "constants"
    elif not set(again.xdp_md) <= set(facts.xdp_md):
        other = "accesses to xdp_md"
    elif len(facts.programs) != len(again.programs) or not all(map(_can_stand_for, again.programs, facts.programs)):
        other = "programs"
    if other is not None:
        raise BindingError(
            f"made by LLVM {made_by}; LLVM {relowered.llvm} lowers the IR to an object with other {other}",
            context=path,
            remedy=f"use it with LLVM {made_by}, or ask its publisher to build it again",
        )


def _can_stand_for(one: Program, claimed: Program) -> bool:
    """Whether a program needs nothing but what was claimed: its code may differ, its interface may not."""
    same = (one.name, one.section, one.flags) == (claimed.name, claimed.section, claimed.flags)
    return same and {*one.helpers, *one.kfuncs} <= {*claimed.helpers, *claimed.kfuncs}


def _data(obj: BpfObject) -> list[object]:
    """Return what is in the maps of global data before the first packet, and where each variable is."""
    return [
        (section.name, section.size, section.data, sorted(obj.global_symbols(section.index).items()))
        for section in obj.sections
        if global_data_kind(section) is not None
    ]


def _first_difference(one: bytes, other: bytes) -> str | None:
    """Return what differs between two objects in anything that a loader looks at; None if nothing does."""
    if one == other:
        return None
    left, right = BpfObject(one), BpfObject(other)
    sections = [[section for section in obj.sections if _is_loaded(section)] for obj in (left, right)]
    for a, b in zip_longest(*sections):
        if a is None or b is None or a.name != b.name:
            return f"section {(a or b).name}"
        if (a.type, a.flags, a.size, a.data) != (b.type, b.flags, b.size, b.data) and not _mean_the_same(
            a.name, left, right
        ):
            return f"section {a.name}"
        if _relocated(left, a) != _relocated(right, b):
            return f"relocations of section {a.name}"
    if _symbols(left) != _symbols(right):
        return "symbol table"
    return None


def _mean_the_same(name: str, left: BpfObject, right: BpfObject) -> bool:
    """Whether two different sections are the same but for what LLVM does not always do in the same way."""
    if left.btf is None or right.btf is None:
        return False
    if name == ".BTF":
        return left.btf.meaning() == right.btf.meaning()
    if name == ".BTF.ext" and left.btf_ext is not None and right.btf_ext is not None:
        return left.btf_ext.meaning() == right.btf_ext.meaning()
    return False


def _is_loaded(section: Section) -> bool:
    """Whether a loader may look at the section itself: at debugging information none does.

    Symbol table and relocations are compared by their meaning, for they also name what is not loaded.
    """
    if section.type in _TABLES:
        return False
    if section.flags & (SHF_ALLOC | SHF_EXECINSTR):
        return True
    return not section.name.startswith((".debug_", ".llvm_addrsig", ".comment"))


def _relocated(obj: BpfObject, section: Section) -> list[tuple[int, int, object]]:
    places = obj.relocations.get(section.index, {})
    return [(offset, kind, _symbol(obj, symbol)) for offset, (kind, symbol) in sorted(places.items())]


def _symbols(obj: BpfObject) -> list[object]:
    """Return the symbols in their order, which is that of libbpf's programs, without those of debugging information."""
    unloaded = {section.index for section in obj.sections if not _is_loaded(section)} - {SHN_UNDEF}
    return [
        _symbol(obj, symbol) for symbol in obj.symbols if symbol.type != STT_FILE and symbol.section not in unloaded
    ]


def _symbol(obj: BpfObject, symbol: Symbol) -> tuple[object, ...]:
    """Return a symbol without the index of its section, which depends on what else is in the file."""
    section = obj.sections[symbol.section].name if symbol.section < SHN_LORESERVE else symbol.section
    return (section, *symbol._replace(section=0))
