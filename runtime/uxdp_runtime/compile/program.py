"""Compile: VerifiedObject → CompiledProgram, ahead of time, from the cache, or by LLVM in a child process.

What native code is made of was bound to the object that the kernel verified, and the numbers that libbpf chose for this
kernel (CO-RE, configuration, constants) are the same. For code that the bundle brings along its signer vouches: see
``ahead``. Nothing but ``compile_program`` makes a CompiledProgram.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError
from uxdp_bundle.lowering import LLVM_MAJOR

from ..stores import check_maps, control_library
from ..verify import VerifiedObject
from . import cache
from .ahead import Rejection, find_native
from .compiler import EXPORTED, NativeObject, ProgramSource, Target, Variant, compile_object
from .coverage import EXPORTED as COUNTERS
from .targets import host_target

_ONWARD: Final = frozenset({"devmap", "cpumap"})  # flags of programs in maps' values
_MAKER: Final = object()
TO_EXPLORE: Final = Variant(exported=(*EXPORTED, *COUNTERS), lookahead=False, coverage=True)


class Origin(Enum):
    """Where native code came from: the bundle, the cache, or LLVM just now."""

    AHEAD = "aot"
    CACHE = "cache"
    LLVM = "llvm"


@dataclass(frozen=True, eq=False)
class CompiledProgram:
    """Native code of one program of a verified object; made by ``compile_program`` alone.

    ``rejections`` say why native code that the bundle carries for this program was not used, if it was not.
    """

    verified: VerifiedObject
    source: ProgramSource
    native: NativeObject
    origin: Origin
    rejections: tuple[Rejection, ...]
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("a CompiledProgram is made by compile_program() alone")

    @property
    def helpers(self) -> frozenset[str]:
        """The helpers that any program of the object calls, by name."""
        return frozenset(name for program in self.verified.bound.facts.programs for name in program.helpers)

    def __init_subclass__(cls) -> None:
        raise TypeError("CompiledProgram cannot be derived from")


def compile_program(
    verified: VerifiedObject, program: str, target: Target | None, *, num_cpus: int, cache_directory: Path | None
) -> CompiledProgram:
    """Compile one program of a verified object for one machine, unless the bundle or the cache has it compiled.

    :param program: name of a program that was verified
    :param target: what to compile for, if it has to be; None: this machine
    :param num_cpus: number of workers: slots of per-CPU maps
    :param cache_directory: where compiled objects are kept; None: nowhere
    :raises UnsupportedFeatureError: the bundle has no IR, or uses what has no native implementation
    :raises LoweringError: LLVM failed
    :raises KeyFileError: the cache is not safe to use
    """
    if program not in verified.programs:
        raise UxdpError(f"program {program!r} was not verified", context=verified.bound.authentic.bundle.path)
    source = program_source(
        verified.bound, program, num_cpus=num_cpus, values=verified.placeholders(), constants=verified.params
    )
    found, rejections = find_native(verified.bound, source)
    if found is not None:
        return CompiledProgram(verified, source, found, Origin.AHEAD, (), _MAKER)
    target = target if target is not None else host_target(cache_directory)
    native, origin = _compiled(verified.bound, source, target, cache_directory)
    return CompiledProgram(verified, source, native, origin, rejections, _MAKER)


def program_source(
    bound: BoundBundle, program: str, *, num_cpus: int, values: Mapping[str, int] | None, constants: Mapping[str, bytes]
) -> ProgramSource:
    """Gather what decides the native code of a program.

    :raises UnsupportedFeatureError: the bundle has no IR, or a map that has no native implementation
    """
    bundle = bound.authentic.bundle
    if bound.ir is None:
        raise UnsupportedFeatureError(
            "native code",
            "the bundle has no IR, because its source holds BPF inline assembly that has no form there",
            context=bundle.path,
            remedy="serve it in the kernel",
        )
    obj = bound.relowered if bound.relowered is not None else bytes(bundle.object)
    check_maps(obj, bound.facts.maps, control_library())
    return ProgramSource(
        ir=bound.ir,
        object=obj,
        entry=program,
        programs=tuple(fact.name for fact in bound.facts.programs),
        maps=bound.facts.maps,
        num_cpus=num_cpus,
        values=values,
        constants=constants,
        onward=tuple(fact.name for fact in bound.facts.programs if _ONWARD & set(fact.flags)),
    )


def compile_to_explore(compiled: CompiledProgram, target: Target | None, cache_directory: Path | None) -> NativeObject:
    """Compile a program once more, with counters on its edges; see ``coverage``. It is never served.

    :param target: None: this machine
    """
    target = target if target is not None else host_target(cache_directory)
    native, _origin = _compiled(compiled.verified.bound, compiled.source, target, cache_directory, TO_EXPLORE)
    return native


def _compiled(
    bound: BoundBundle,
    source: ProgramSource,
    target: Target,
    directory: Path | None,
    variant: Variant | None = None,
) -> tuple[NativeObject, Origin]:
    if directory is None:
        return compile_object(source, target, variant), Origin.LLVM
    key = cache.cache_key(bound.authentic.bundle.bundle_id, source, target, str(LLVM_MAJOR), variant)
    found = cache.load(directory, key, target, str(LLVM_MAJOR))
    if found is not None:
        return found, Origin.CACHE
    native = compile_object(source, target, variant)
    cache.save(directory, key, native)
    return native, Origin.LLVM
