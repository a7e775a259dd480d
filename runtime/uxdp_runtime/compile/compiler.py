"""Compile the IR of a bundle to a native object, in a confined child process.

What is compiled was bound, so the IR is what the kernel's verifier has seen. The child links it with the native library
(maps, helpers, the burst loop), optimises the whole for one CPU and returns an object file; see ``loader`` for how it
gets into this process. This process parses no LLVM input.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.btf import Kind
from uxdp_bundle.confined_child import LLVMLITE_REMEDY, llvmlite_folder, run_child
from uxdp_bundle.errors import BindingError, LoweringError, UnsupportedFeatureError, UxdpError
from uxdp_bundle.instructions import exception_callbacks
from uxdp_bundle.lowering import LLVM_MAJOR
from uxdp_bundle.manifest import MapDefinition, to_json

from ..bpf.timer_fields import lock_fields, timer_fields
from . import late_values
from .loader import undefined_names, with_absolute_symbols
from .places import place_of

NATIVE_FOLDER: Final = Path(__file__).parent.parent / "native"
EXPORTED: Final = ("uxdp_run", "uxdp_asks_for_room", "uxdp_takes_mbufs", "uxdp_run_mbufs")
# The libc functions that the native library and LLVM's own lowering call.
LIBC: Final = (
    *(
        "memcpy",
        "memmove",
        "memset",
        "memcmp",
        "bcmp",
        "clock_gettime",
        "write",
        "getpid",
        "process_vm_readv",
        "syscall",
    ),
)
_MAX_EXTRA: Final = 0xFFFF  # no map here makes sense of more
_TIMEOUT_SECONDS: Final = 120


@dataclass(frozen=True, slots=True)
class Target:
    """The machine to compile for: LLVM's CPU name and features, and which native library."""

    machine: str  # x86_64 or aarch64
    cpu: str
    features: str


@dataclass(frozen=True, slots=True)
class NativeObject:
    """A compiled program: an ELF object for ``target``, made by LLVM ``llvm``.

    ``values`` are the numbers that stand for placeholders in it, if it was just compiled.
    """

    data: bytes
    target: Target
    llvm: str
    values: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class ProgramSource:
    """Everything that decides what the native code of a program is.

    ``programs`` are all XDP programs of the object in the manifest's order, ``entry`` is the one that frames enter.
    ``num_cpus`` is the number of workers, 0 if the code must do for any number.
    ``values`` are what libbpf chose for placeholders (CO-RE, kconfig), None for what the compiler assumed;
    ``constants`` are the .rodata variables whose content differs from the object's.
    ``onward`` are those programs that devmaps and cpumaps may name, which run on frames that are redirected there.
    """

    ir: bytes
    object: bytes
    entry: str
    programs: tuple[str, ...]
    maps: tuple[MapDefinition, ...]
    num_cpus: int
    values: Mapping[str, int] | None
    constants: Mapping[str, bytes]
    onward: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """How to compile, for measurements and to explore; what is served is compiled as by default.

    ``exported`` are the functions that the object defines. Without ``inlining`` helpers and maps stay calls of
    functions that work on any map; without ``lookahead`` lookups are not prefetched; ``from_c`` tells that the IR was
    made for this machine, not for BPF; with ``coverage`` the code counts the edges that it takes (see coverage).
    """

    exported: tuple[str, ...] = EXPORTED
    inlining: bool = True
    lookahead: bool = True
    from_c: bool = False
    coverage: bool = False


def compile_object(source: ProgramSource, target: Target, variant: Variant | None = None) -> NativeObject:
    """Compile one program for one machine.

    :raises UnsupportedFeatureError: a helper, map or construct without native implementation; ``context`` says where
    :raises LoweringError: LLVM refused the IR, died, or took too long
    """
    variant = Variant() if variant is None else variant
    library = native_library(target.machine)
    declared = [definition for definition in source.maps if not definition.name.startswith(".")]
    request: dict[str, Any] = {
        "native_bytes": len(library),
        "target": {"cpu": target.cpu, "features": target.features},
        "exported": [*variant.exported, *(("uxdp_run_timers",) if timer_fields(BpfObject(source.object)) else ())],
        "inlining": variant.inlining,
        "lookahead": variant.lookahead,
        "from_c": variant.from_c,
        "coverage": variant.coverage,
        "libc": list(LIBC),
        "llvm_major": LLVM_MAJOR,
        "entry": source.entry,
        "programs": list(source.programs),
        "onward": list(source.onward),
        "maps": [to_json(definition) | {"extra": extra} for definition, extra in with_extra(declared, source.object)],
        "num_cpus": source.num_cpus,
        "values": None if source.values is None else dict(source.values),
        # What is compiled ahead of time gets numbers that only the kernel knows when it is loaded.
        "late": source.values is None and source.num_cpus == 0,
        **_externs(source.object),
        "handlers": exception_callbacks(BpfObject(source.object)),
        "variables": {name: section for name, (section, _offset) in writable_variables(source.object).items()},
        "constants": {
            name: content.hex() for name, content in (_with_addresses(source.object) | dict(source.constants)).items()
        },
    }
    native = _run(request, [library, source.ir], target, source.object)
    if source.values is not None:
        return with_late_values(native, source.values)
    if not request["late"] and (unknown := sorted(late_values.undefined(undefined_names(native.data)))):
        raise UnsupportedFeatureError(
            unknown[0], "only the kernel knows it that the program is loaded into", context=f"program {source.entry}"
        )
    return native


def with_late_values(native: NativeObject, values: Mapping[str, int]) -> NativeObject:
    """Return native code in which numbers that only the kernel knows are what it says.

    :raises NativeObjectError: the code is malformed
    """
    known = late_values.define(undefined_names(native.data), values)
    return replace(native, data=with_absolute_symbols(native.data, known)) if known else native


def with_extra(maps: Iterable[MapDefinition], obj: bytes) -> list[tuple[MapDefinition, int]]:
    """Return maps with what struct uxdp_map has as ``extra``: map_extra, or where values have a lock, plus 1."""
    locks = lock_fields(BpfObject(obj))
    return [(item, locks[item.name] + 1 if item.name in locks else min(item.extra, _MAX_EXTRA)) for item in maps]


def native_library(machine: str) -> bytes:
    """Return the native library's bitcode, which is built with the wheel.

    :raises UnsupportedFeatureError: there is none for this machine
    """
    path = NATIVE_FOLDER / f"uxdp-{machine}.bc"
    try:
        return path.read_bytes()
    except FileNotFoundError as cause:
        raise UnsupportedFeatureError(
            machine, "this installation has no native library for it", context=str(path), remedy="reinstall uxdp"
        ) from cause


def writable_variables(obj: bytes) -> dict[str, tuple[str, int]]:
    """Return the object's writable global variables: name -> (section, byte offset in it)."""
    parsed = BpfObject(obj)
    sections = {section.index: section.name for section in parsed.sections if _is_writable(section.name)}
    return {
        symbol.name: (sections[symbol.section], symbol.value)
        for symbol in parsed.symbols
        if symbol.type == "STT_OBJECT" and symbol.section in sections and symbol.name
    }


def _externs(obj: bytes) -> dict[str, Any]:
    """Return what the object asks the kernel for besides kfuncs: configuration, and symbols with or without type."""
    btf = BpfObject(obj).btf
    if btf is None:
        return {"kconfig": [], "ksyms": {}}
    return {
        "kconfig": [variable.name for variable in btf.data_section(".kconfig")],
        "ksyms": {
            variable.name: btf.resolve_id(variable.size_or_type) != 0
            for variable in btf.data_section(".ksyms")
            if variable.kind is Kind.VAR
        },
    }


def _with_addresses(obj: bytes) -> dict[str, bytes]:
    """Return the constants that hold addresses, as the kernel gets them: libbpf relocates no global data.

    Their bytes are those in the file, in the place of addresses zeros as a rule. (Writable variables are in the memory
    of their section, which has the file's bytes anyway.) Source: libbpf, bpf_object__elf_collect, "skipping relo"
    """
    parsed = BpfObject(obj)
    return {
        symbol.name: section.data[symbol.value : symbol.value + symbol.size]
        for symbol in parsed.symbols
        if symbol.type == "STT_OBJECT" and symbol.name and 0 < symbol.section < len(parsed.sections)
        for section in (parsed.sections[symbol.section],)
        if section.name.startswith(".rodata")
        and any(
            symbol.value <= place < symbol.value + symbol.size for place in parsed.relocations.get(section.index, ())
        )
    }


def _is_writable(section: str) -> bool:
    return section.split(".")[1:2] in (["data"], ["bss"]) and section.startswith(".")


def _run(request: dict[str, Any], blobs: Sequence[bytes], target: Target, obj: bytes) -> NativeObject:
    package = Path(__file__).parent
    reply, data, log = run_child(
        package / "compile_child.py",
        request,
        blobs,
        folders=(package.parent.parent, Path(to_json.__code__.co_filename).parent.parent, llvmlite_folder()),
        timeout_seconds=_TIMEOUT_SECONDS,
    )
    if reply.get("refused") is not None:
        raise _refusal(reply["refused"], obj, log)
    llvm, values = reply.get("llvm"), reply.get("values") or {}
    if not data or not isinstance(llvm, str) or not _are_numbers(values):
        raise LoweringError("the LLVM process gave no object", log=log, context="IR")
    return NativeObject(data, target, llvm, values)


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, int) for value in values.values())


def _refusal(refused: object, obj: bytes, log: str) -> UxdpError:
    """Return the error that a child's refusal is: its shape is checked, for the child may be in the hands of the IR."""
    match refused:
        case {"kind": str(kind), "name": str(name), "message": str(message), "function": str(function)}:
            if kind == "llvm":
                return UnsupportedFeatureError("llvmlite", message, remedy=LLVMLITE_REMEDY)
            if kind in ("call", "context", "extern"):
                return UnsupportedFeatureError(name, message, context=place_of(obj, name, function) or "IR")
            return BindingError(message, context="IR")
    return LoweringError("the LLVM process gave no usable answer", log=log, context="IR")
