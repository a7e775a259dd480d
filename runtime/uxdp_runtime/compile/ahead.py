"""Native code that was compiled ahead of time, and travels in the bundle as signed members (FORMAT.md, 5.1).

Code of a bundle is used without LLVM if its signer is trusted to bring native code (the role "native" in a trust file),
and if everything that it was compiled for and from is what would be compiled now: machine and CPU features, LLVM and
the native library, object, maps and constants, and the numbers that libbpf chose in this kernel. The number of workers
is not among them: the loader resolves it. Code that is not used is a ``Rejection``, with the reason; the program is
then compiled from its IR.
"""

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.errors import BundleFormatError
from uxdp_bundle.lowering import LLVM_MAJOR
from uxdp_bundle.native_code import NativeCode, maps_digest, parse_native_code

from .asking import KERNEL
from .compiler import (
    EXPORTED,
    LIBC,
    NativeObject,
    ProgramSource,
    Target,
    compile_object,
    native_library,
    with_late_values,
    writable_variables,
)
from .cpu_features import host_features
from .definitions import CPU_STORE, NUM_CPUS, STORE
from .late_values import SYMBOL, is_late
from .loader import LinkedImage, NativeObjectError
from .names import OWN
from .targets import NamedTarget

ROLE: Final = "native"
_NOWHERE: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a member with native code is not used: ``field`` says what differs, ``reason`` how."""

    member: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.member}: {self.reason}"


def compile_ahead(source: ProgramSource, named: NamedTarget) -> NativeCode:
    """Compile a program for a CPU that need not be this machine's.

    :param source: with the values that the compiler assumed, and no constants set; its number of workers is ignored
    :raises UnsupportedFeatureError: it uses what has no native implementation
    :raises LoweringError: LLVM failed
    """
    native = compile_object(replace(source, num_cpus=0), named.target)
    return NativeCode(
        program=source.entry,
        machine=named.target.machine,
        cpu=named.target.cpu,
        features=named.features,
        llvm=native.llvm,
        library=hashlib.sha256(native_library(named.target.machine)).hexdigest(),
        object=hashlib.sha256(source.object).hexdigest(),
        maps=maps_digest(source.maps),
        values=native.values,
        data=native.data,
    )


def find_native(bound: BoundBundle, source: ProgramSource) -> tuple[NativeObject | None, tuple[Rejection, ...]]:
    """Return the native code of a bundle for a program on this machine, or why there is none that can be used.

    Of several the one for the CPU with most features is taken. Without any for this program: neither code nor reasons.
    """
    bundle = bound.authentic.bundle
    rejections: list[Rejection] = []
    best: NativeCode | None = None
    names = [member.name for member in bundle.manifest.members if member.role == ROLE]
    for name in names if not bound.authentic.allows_native else ():
        if name.startswith(f"{source.entry}/"):
            reason = "its signers are not trusted for native code, only for programs"
            return None, (Rejection(name, "signature", reason),)
    for name in names:
        if not name.startswith(f"{source.entry}/"):
            continue
        try:
            code = parse_native_code(bundle.member(ROLE, name), name, context=f"{bundle.path}: native {name}")
        except BundleFormatError as error:
            rejections.append(Rejection(name, "format", str(error)))
            continue
        difference = next(_differences(code, source), None)
        if difference is not None:
            rejections.append(Rejection(name, *difference))
        elif best is None or len(code.features) > len(best.features):
            best = code
    if best is None:
        return None, tuple(rejections)
    found = NativeObject(best.data, Target(best.machine, best.cpu, ""), best.llvm, best.values)
    return with_late_values(found, source.values or {}), ()


def _differences(code: NativeCode, source: ProgramSource) -> Iterator[tuple[str, str]]:
    """Yield in what code differs from what would be compiled here and now: a word, and a sentence."""
    if code.machine != platform.machine():
        yield "machine", f"compiled for {code.machine}, this machine is {platform.machine()}"
        return
    if code.program != source.entry:
        yield "program", f"is {code.program}"
    missing = sorted({*code.features} - host_features())
    if missing:
        yield "features", f"compiled for {code.cpu}; this machine lacks {', '.join(missing)}"
    if code.llvm.partition(".")[0] != str(LLVM_MAJOR):
        yield "llvm", f"compiled by LLVM {code.llvm}, this runtime uses {LLVM_MAJOR}"
    if code.library != hashlib.sha256(native_library(code.machine)).hexdigest():
        yield "library", "compiled with the native library of another version of uxdp"
    if code.object != hashlib.sha256(source.object).hexdigest():
        yield "object", "compiled from another object"
    if code.maps != maps_digest(source.maps):
        yield "maps", "compiled for maps of other sizes"
    for name, value in sorted((source.values or {}).items()):
        if not is_late(name) and code.values.get(name) != value:
            yield "values", f"compiled with {code.values.get(name)} for {name}, this kernel has {value}"
    if source.values is not None and (extra := sorted(code.values.keys() - source.values.keys())):
        yield "values", f"compiled with a number for {extra[0]}, for which this kernel has none"
    if source.constants:
        yield "constants", f"compiled with the default of {', '.join(sorted(source.constants))}"
    yield from _link_errors(code, source)


def _link_errors(code: NativeCode, source: ProgramSource) -> Iterator[tuple[str, str]]:
    """Link the code for a place where nothing is: another version of this runtime may call things otherwise."""
    declared = [definition.name for definition in source.maps if not definition.name.startswith(".")]
    names = [
        *(*LIBC, "uxdp_worker", KERNEL, NUM_CPUS),
        *(prefix + name for name in declared for prefix in (STORE, CPU_STORE)),
        *(OWN + name for name in writable_variables(source.object)),
        *(SYMBOL + name for name in source.values or {}),
    ]
    try:
        image = LinkedImage(
            code.data, dict.fromkeys(names, _NOWHERE), code.machine, lambda size: (bytearray(size), _NOWHERE)
        )
    except NativeObjectError as error:
        yield "object-file", f"cannot be loaded: {error.message}"
        return
    for name in EXPORTED:
        if name not in image.symbols:
            yield "object-file", f"cannot be loaded: defines no {name}"
