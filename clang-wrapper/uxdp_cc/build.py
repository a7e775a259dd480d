"""Build a bundle from sources: clang makes IR, llvmlite's BPF backend makes the object from the IR, facts fill the
manifest.

The object comes from the IR and from nothing else, so the two are bound by construction. Only for sources with BPF
inline assembly that has no form in IR (see uxdp_bundle.assembly_ir) clang makes the object, and there is no IR.
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.container import (
    IR_MEDIA_TYPE,
    OBJECT_MEDIA_TYPE,
    SHIM_MEDIA_TYPE,
    Content,
    bundle_from_bytes,
    pack,
)
from uxdp_bundle.errors import LoweringError, ObjectError
from uxdp_bundle.facts import ObjectFacts, object_facts
from uxdp_bundle.lowering import LLVM_MAJOR, RefusedIrError, lower
from uxdp_bundle.manifest import MAX_TEXT, NAME_PATTERN, VERSION_PATTERN, Build, Lowering, Manifest, Requirements
from uxdp_bundle.shim import encode_shim

from .argv import stem
from .compilation import Compilation, Source
from .dependencies import digests, project_files
from .errors import SourceError, UsageError
from .flags import backend_options, cpu, features, optimisation_level, recorded_flags
from .interruption import held
from .toolchain import Toolchain, find_toolchain

SOURCE_MEDIA_TYPE: Final = "text/x-csrc"
_LEGACY_MAPS: Final = "maps"
_NO_PROGRAM_REMEDY: Final = 'mark the entry point with SEC("xdp")'


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build.

    ``sources`` are relative to ``cwd`` or absolute, or ``-`` for standard input. ``clang_args`` go to clang unchanged;
    ``source_args``, if there are any, are those for each source alone, such as its -x.
    """

    sources: tuple[str, ...]
    clang_args: tuple[str, ...] = ()
    name: str | None = None
    version: str = "0"
    security_version: int = 0
    license: str | None = None
    cwd: Path = Path()
    embed_sources: bool = False
    source_args: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """The result: an unsigned bundle's file image, clang's diagnostics if captured, and what uxdp-cc has to say."""

    bundle: bytes
    manifest: Manifest
    diagnostics: str
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Code:
    """An object and, unless clang made it, the IR it was lowered from."""

    object: bytes
    ir: bytes
    lowering: Lowering | None
    notices: tuple[str, ...]


def build(request: BuildRequest, toolchain: Toolchain | None = None, *, capture: bool = True) -> BuildOutput:
    """Compile, lower, derive the facts, pack. Nothing is written but temporary files.

    :param capture: keep clang's standard error for the caller; otherwise it goes to this process's
    :raises CompileError: clang failed
    :raises SourceError: the source compiles, but is no XDP network function
    :raises LoweringError: llvmlite cannot lower what clang can
    :raises UsageError: the request names what no bundle can have
    """
    name = _checked_identity(request)
    mcpu = cpu(request.clang_args)
    toolchain = toolchain or find_toolchain()
    source_args = request.source_args or ((),) * len(request.sources)
    with held():
        temporary = tempfile.TemporaryDirectory(prefix="uxdp-cc-")
    with temporary as folder:
        compilation = Compilation(
            toolchain,
            [Source(path, arguments) for path, arguments in zip(request.sources, source_args, strict=True)],
            request.clang_args,
            cwd=request.cwd.resolve(),
            folder=Path(folder),
            capture=capture,
        )
        code = _lowered(compilation, request.clang_args)
        facts = _checked_facts(code.object, compilation)
        read = [*request.sources, *compilation.read]
        files = project_files(read, compilation.mapping, request.cwd.resolve(), compilation.stdin)
    contents = [
        Content("object", "object", OBJECT_MEDIA_TYPE, code.object),
        *([Content("ir", "ir", IR_MEDIA_TYPE, code.ir, "zstd")] if code.ir else []),
        Content("shim", "shim", SHIM_MEDIA_TYPE, encode_shim(facts.accesses)),
    ]
    if request.embed_sources:
        contents += [Content("source", path, SOURCE_MEDIA_TYPE, files[path], "zstd") for path in sorted(files)]
    manifest = Manifest(
        name=name,
        version=request.version,
        security_version=request.security_version,
        license=request.license if request.license is not None else facts.license,
        critical=(),
        members=(),
        programs=facts.programs,
        maps=facts.maps,
        xdp_md=facts.xdp_md,
        params=facts.params,
        requirements=Requirements(facts.kernel, LLVM_MAJOR if code.ir else 0, mcpu),
        build=Build(toolchain.version, recorded_flags(request.clang_args), digests(files), code.lowering),
    )
    image = pack(manifest, contents)
    # What readers would refuse, such as a file name of 300 characters, is refused here.
    with bundle_from_bytes(image, path=name) as bundle:
        return BuildOutput(image, bundle.manifest, compilation.diagnostics, code.notices)


def name_of(path: str) -> str:
    """Return a bundle's default name: the stem of a file's name, made to fit the rule for names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem(path)).lstrip("._-")[:64] or "nf"


def _lowered(compilation: Compilation, clang_args: Sequence[str]) -> _Code:
    """Return the object lowered from the IR of all sources; clang's if only inline assembly is in the way."""
    modules = compilation.bitcode()
    lowering = Lowering("", cpu(clang_args), features(clang_args), optimisation_level(clang_args))
    try:
        lowered = lower(
            modules, cpu=lowering.cpu, features=lowering.features, optimisation=lowering.optimisation, prepare=True
        )
    except RefusedIrError as refusal:
        return _without_ir(refusal, compilation)
    except LoweringError:
        for source in compilation.sources:
            compilation.object_by_clang(source)  # raises with clang's own diagnostics if clang cannot do it either
        raise
    notices = [lowered.warnings.rstrip()] if lowered.warnings else []
    if options := backend_options(clang_args):
        notices.append(f"-mllvm {' '.join(options)}: reaches clang's optimiser, not the backend that makes the object")
    recorded = Lowering(lowered.llvm, lowering.cpu, lowering.features, lowering.optimisation)
    return _Code(lowered.object, lowered.ir, recorded, tuple(notices))


def _without_ir(refusal: RefusedIrError, compilation: Compilation) -> _Code:
    """Return clang's object if inline assembly is all that is wrong with the IR, else refuse the source."""
    sources = compilation.sources
    everywhere = ", ".join(source.path for source in sources)
    if refusal.kind == "module-asm":
        raise SourceError(
            f"{refusal.message} cannot be part of a network function",
            context=compilation.find_declaration("FileScopeAsmDecl") or everywhere,
            remedy="remove the asm(…) at file scope",
        )
    if refusal.kind != "inline-asm":
        raise SourceError(refusal.message, context=everywhere)
    if len(sources) > 1:
        raise SourceError(
            f"{refusal.message}; it cannot be linked as IR",
            context=everywhere,
            remedy="compile each source with -c, or leave the assembly out",
        )
    notice = (
        f"{everywhere}: {refusal.message}: clang makes the object, and the bundle carries no IR; "
        "it runs in the kernel and on the bytecode path"
    )
    return _Code(compilation.object_by_clang(sources[0]), b"", None, (notice,))


def _checked_identity(request: BuildRequest) -> str:
    """Check what the request says of the bundle; return its name, by default that of the first source."""
    if not request.sources:
        raise UsageError("no input files")
    name = request.name if request.name is not None else name_of(request.sources[0])
    if not NAME_PATTERN.fullmatch(name):
        raise UsageError(f"--uxdp-name: {name!r}, expected {NAME_PATTERN.pattern}")
    if not VERSION_PATTERN.fullmatch(request.version):
        raise UsageError(f"--uxdp-version: {request.version!r}, expected {VERSION_PATTERN.pattern}")
    text = request.license or ""
    if len(text) > MAX_TEXT or not text.isprintable():
        raise UsageError(f"--uxdp-license: {text[:40]!r}, expected at most {MAX_TEXT} printable characters")
    return name


def _checked_facts(obj: bytes, compilation: Compilation) -> ObjectFacts:
    """Derive the facts; refuse with file:line what no kernel loads as XDP."""
    try:
        facts = object_facts(obj)
    except ObjectError as cause:
        place = _declared(obj, cause.context, compilation)
        message = cause.message if place is None else f"{cause.context}: {cause.message}"
        raise SourceError(message, context=place or compilation.place(cause.context), remedy=cause.remedy) from cause
    if not facts.programs and facts.other_programs:
        first = facts.other_programs[0]
        raise SourceError(
            f"no XDP program: {'; '.join(finding.message for finding in facts.other_programs[:4])}",
            context=compilation.place(first.where),
            remedy=_NO_PROGRAM_REMEDY,
        )
    if not facts.programs:
        where = f"{compilation.sources[0].path}:1"
        raise SourceError("no XDP program", context=where, remedy=_NO_PROGRAM_REMEDY)
    if facts.forbidden:
        first, *others = facts.forbidden
        listed = [first.message, *(f"{other.message} at {compilation.place(other.where)}" for other in others)]
        raise SourceError("; ".join(listed), context=compilation.place(first.where))
    return facts


def _declared(obj: bytes, context: str, compilation: Compilation) -> str | None:
    """Return file:line of the declaration that an ObjectError is about, if it names a map, function or constant."""
    what, _, name = context.partition(",")[0].partition(" ")
    if context == f"section {_LEGACY_MAPS}":
        parsed = BpfObject(obj)
        section = parsed.section(_LEGACY_MAPS)
        names = [symbol.name for symbol in parsed.symbols if section is not None and symbol.section == section.index]
        what, name = "map", next((symbol for symbol in names if symbol), "")
    kind = {"map": "VarDecl", "constant": "VarDecl", "function": "FunctionDecl"}.get(what)
    return compilation.find_declaration(kind, name) if kind else None
