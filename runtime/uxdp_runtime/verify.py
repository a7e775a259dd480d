"""Verify: BoundBundle → VerifiedObject, by the kernel's verifier, or one typed error that says why not.

The object is loaded by libbpf from the sealed memory that was authenticated and bound; no path is opened again. Only
its XDP programs are loaded. If another LLVM made the object (``Binding.MUST_REVERIFY``), then the object that this LLVM
makes of the IR is loaded as well, with the same maps and constants: native code comes from that IR, so what it lowers
to has to pass the verifier too.

Whose memory is whose: programs and maps stay in the kernel until ``VerifiedObject.close()``. Descriptors are borrowed
from it; who needs one for longer duplicates it (os.dup). What was pinned stays pinned.

Nothing but ``verify`` makes a VerifiedObject or a VerifiedProgram, so code that takes one cannot be reached without.
"""

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import Final, Self

from uxdp_bundle.binding import Binding, BoundBundle
from uxdp_bundle.errors import BindingError, UnsupportedFeatureError

from .bpf import syscall
from .bpf.constants import Constant, encode_constants
from .bpf.libbpf import LibbpfObject
from .bpf.loading import LoadRequest, default_programs, is_device_bound, load
from .bpf.maps import Map
from .bpf.relocation import CoreValue, Extern, ExternKind, LoadedCode, ObjectCode, Place
from .bpf.verifier_log import processed_instructions, verification_time_us
from .errors import ParameterError

_MAKER: Final = object()
_KCONFIG: Final = ".kconfig"
_FIRST_KEY: Final = bytes(4)
# What stands for a CO-RE relocation without an answer: libbpf's own number, in code that the verifier found dead.
_NO_ANSWER: Final = 0xBAD2310


@dataclass(frozen=True, eq=False)
class VerifiedProgram:
    """One program that the kernel's verifier accepted; made by ``verify`` alone.

    ``fd`` is borrowed until the object is closed. ``tag`` is the kernel's digest of the instructions, in hex,
    ``processed_instructions`` how many the verifier walked through, ``verification_time_us`` how long that took (None
    where the kernel does not say), ``log`` what it wrote, ``maps`` the names of the maps that the program uses.
    ``code`` are the instructions that the kernel got, subprograms included, and where each stands in the object.
    ``device_bound``: it asks for what hardware knows of frames, so it can be attached to no device and run in no test.
    """

    name: str
    section: str
    flags: tuple[str, ...]
    fd: int
    id: int
    tag: str
    processed_instructions: int
    verification_time_us: int | None
    jited_bytes: int
    maps: tuple[str, ...]
    log: str
    code: LoadedCode
    device_bound: bool
    maker: InitVar[object]

    def __post_init__(self, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("a VerifiedProgram is made by verify() alone")

    def check_runs_in_kernel(self, where: str) -> None:
        """Check that the kernel can be asked to run the program.

        :param where: what it is asked for, such as "in a test"
        :raises UnsupportedFeatureError: it is for one device alone
        """
        if self.device_bound:
            raise UnsupportedFeatureError(
                "hardware's metadata",
                f"the kernel runs a program that asks for it (bpf_xdp_metadata_rx_…) on one device alone, not {where}",
                context=f"program {self.name}",
                remedy="serve it natively, and let frames pass or be dropped while nobody serves",
            )

    def __init_subclass__(cls) -> None:
        raise TypeError("VerifiedProgram cannot be derived from")


@dataclass(frozen=True, eq=False)
class VerifiedObject:
    """The loaded programs and maps of a bundle; made by ``verify`` alone. Close it, or use it as a context manager.

    - ``programs``: those that were loaded, by name, in the manifest's order;
    - ``maps``: all maps, by name; global data by its section, such as ``.bss``;
    - ``constants``: what the kernel holds in its frozen maps, by section: ``.rodata``, ``.rodata.*``, ``.kconfig``;
    - ``params``: the constants that were given another value, by name, as bytes in memory order;
    - ``core_values``: what libbpf chose for CO-RE, by place in the object that the bundle's IR lowers to;
    - ``externs``: what externs of that object were resolved to, by name; ``kconfig``: values of those that are kernel
      configuration, as bytes in memory order;
    - ``reverified``: whether the relowered object passed the verifier as well (MUST_REVERIFY).
    """

    bound: BoundBundle
    programs: Mapping[str, VerifiedProgram]
    maps: Mapping[str, Map]
    constants: Mapping[str, bytes]
    params: Mapping[str, bytes]
    core_values: Mapping[Place, CoreValue]
    externs: Mapping[str, Extern]
    kconfig: Mapping[str, bytes]
    reverified: bool
    loaded: InitVar[LibbpfObject]
    maker: InitVar[object]
    _loaded: LibbpfObject = field(init=False, repr=False)

    def __post_init__(self, loaded: LibbpfObject, maker: object) -> None:
        if maker is not _MAKER:
            raise TypeError("a VerifiedObject is made by verify() alone")
        object.__setattr__(self, "_loaded", loaded)

    def __init_subclass__(cls) -> None:
        raise TypeError("VerifiedObject cannot be derived from")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the programs and maps; all descriptors become invalid."""
        self._loaded.close()

    def placeholders(self) -> dict[str, int]:
        """Return the values of the global placeholders in the bundle's IR, by name.

        These are CO-RE's (``llvm.xdp_md:0:4$0:1``; type ids, whose placeholders have no meaningful name, as
        ``type_id:7:xdp_md``), kernel configuration of up to 8 bytes (``CONFIG_HZ``), addresses of kernel symbols, or
        whether there is such a variable (``ksym:jiffies``), and for kfuncs that the bundle can do without whether this
        kernel has them (``kfunc:bpf_dynptr_from_xdp``). A relocation without an answer in this kernel, which only
        code that is never reached may have, gets a number that is none.

        :raises UnsupportedFeatureError: two types of the same name have different answers
        """
        values: dict[str, int] = {}
        for value in self.core_values.values():
            answer = _NO_ANSWER if value.value is None else value.value
            if values.setdefault(value.placeholder, answer) != answer:
                raise UnsupportedFeatureError(
                    "CO-RE", f"two types are called {value.type_name}, and the kernel answers differently for each"
                )
        for name, data in self.kconfig.items():
            if len(data) <= 8:
                values[name] = int.from_bytes(data, sys.byteorder)
        for name, extern in self.externs.items():
            if extern.kind is ExternKind.KSYM:
                values[f"ksym:{name}"] = int(extern.value != 0) if extern.by_btf_id else extern.value
        facts = self.bound.facts
        for name in {name for program in facts.programs for name in program.kfuncs}:
            if f"kfunc:{name}" not in facts.kernel and name in self.externs:
                values[f"kfunc:{name}"] = int(self.externs[name].value != 0)
        return values


def verify(
    bound: BoundBundle,
    *,
    programs: Collection[str] | None = None,
    params: Mapping[str, int | bytes] = MappingProxyType({}),
    max_entries: Mapping[str, int] = MappingProxyType({}),
    pin_path: str | os.PathLike[str] | None = None,
    share_arrays: bool = False,
    reuse: Mapping[str, int] = MappingProxyType({}),
) -> VerifiedObject:
    """Load a bundle's maps and XDP programs into the kernel, and let its verifier judge them.

    :param programs: names of those to load, and with them those that a prog_array holds from the start; None: all but
        those in ``SEC("?…")``
    :param params: new values of constants in .rodata: integers for integer types, for all types bytes in memory order
    :param max_entries: new sizes of maps
    :param pin_path: a folder in a bpffs, in which each declared map is pinned under its name; maps that are there
        already are used. None: nothing is pinned, whatever the object says
    :param share_arrays: create declared arrays so that they can be mapped into memory (BPF_F_MMAPABLE)
    :param reuse: descriptors of maps to use, with what is in them, instead of new ones, by name; borrowed
    :raises VerifierError: the verifier refused a program; nothing stays in the kernel
    :raises MissingCapabilityError: this process may not load programs; ``missing`` names what it lacks
    :raises ParameterError: no such program, constant or map, or a value that does not fit
    :raises UnsupportedFeatureError: libbpf is missing, or this kernel lacks what the bundle needs
    :raises LoadError: libbpf or the kernel refused for another reason
    :raises BindingError: the relowered object makes other maps or programs than the object
    """
    bundle = bound.authentic.bundle
    names = _checked_names(bound, programs)
    code = ObjectCode(bundle.object)
    request = LoadRequest(
        data=bundle.object,
        name=bundle.manifest.name,
        context=bundle.path,
        facts=bound.facts,
        programs=names,
        constants=encode_constants(code.object, bound.facts.params, params),
        max_entries=max_entries,
        pin_path=None if pin_path is None else os.fspath(pin_path),
        reuse=reuse,
        share_arrays=share_arrays,
    )
    loaded = load(request, code)
    try:
        choices = _choices(loaded, code)
        if bound.binding is Binding.MUST_REVERIFY:
            choices = _reverify(bound, request, loaded, params)
        return _verified(bound, loaded, code, request.constants, choices)
    except BaseException:
        loaded.close()
        raise


@dataclass(frozen=True, slots=True)
class _Choices:
    """What libbpf chose for the programs of one object."""

    core_values: dict[Place, CoreValue]
    externs: dict[str, Extern]


def _checked_names(bound: BoundBundle, programs: Collection[str] | None) -> tuple[str, ...]:
    if programs is None:
        return default_programs(bound.facts)
    known = [program.name for program in bound.facts.programs]
    for name in programs:
        if name not in known:
            raise ParameterError(
                f"the bundle has no such program, but {', '.join(known)}",
                context=f"{bound.authentic.bundle.path}: program {name}",
            )
    if not programs:
        raise ParameterError("no program is named", context=bound.authentic.bundle.path)
    return tuple(programs)


def _choices(loaded: LibbpfObject, code: ObjectCode) -> _Choices:
    choices = _Choices({}, {})
    for program in loaded.programs:
        if program.fd >= 0:
            instructions = code.loaded(program.name, program.instructions())
            choices.core_values.update(code.core_values(instructions))
            choices.externs.update(code.externs(instructions))
    return choices


def _reverify(
    bound: BoundBundle, request: LoadRequest, loaded: LibbpfObject, params: Mapping[str, int | bytes]
) -> _Choices:
    """Let the verifier judge what this LLVM makes of the IR, with the maps that are there; it is not kept."""
    relowered = bound.relowered
    if relowered is None:
        raise BindingError("must be verified again, but was not lowered again", context=request.context)
    code = ObjectCode(relowered)
    again = LoadRequest(
        data=relowered,
        name=request.name,
        context=f"{request.context}: lowered again",
        facts=request.facts,
        programs=request.programs,
        constants=encode_constants(code.object, bound.facts.params, params),
        max_entries=request.max_entries,
        pin_path=None,
        reuse={item.name: item.fd for item in loaded.maps if not item.section and not item.holds_references},
    )
    second = load(again, code)
    try:
        _check_same(request.context, loaded, second)
        return _choices(second, code)
    finally:
        second.close()


def _check_same(context: str, one: LibbpfObject, other: LibbpfObject) -> None:
    """Compare the maps and programs that libbpf made of two objects."""
    for what, first, second in (
        ("maps", [(m.name, m.definition()) for m in one.maps], [(m.name, m.definition()) for m in other.maps]),
        (
            "programs",
            [(p.name, p.section, p.type, p.expected_attach_type, p.flags, p.fd >= 0) for p in one.programs],
            [(p.name, p.section, p.type, p.expected_attach_type, p.flags, p.fd >= 0) for p in other.programs],
        ),
    ):
        if sorted(first) != sorted(second):
            raise BindingError(f"this LLVM lowers the IR to an object with other {what}", context=context)


def _verified(
    bound: BoundBundle,
    loaded: LibbpfObject,
    code: ObjectCode,
    constants: tuple[Constant, ...],
    choices: _Choices,
) -> VerifiedObject:
    maps = {item.name: Map(item.fd, name=item.name) for item in loaded.maps}
    map_names = {item.info.id: name for name, item in maps.items()}
    by_name = {program.name: program for program in loaded.programs if program.fd >= 0}
    programs: dict[str, VerifiedProgram] = {}
    for fact in bound.facts.programs:
        if fact.name not in by_name:
            continue
        program = by_name[fact.name]
        info = syscall.program_info(program.fd)
        log = program.log()
        programs[fact.name] = VerifiedProgram(
            name=fact.name,
            section=fact.section,
            flags=fact.flags,
            fd=program.fd,
            id=info.id,
            tag=info.tag,
            processed_instructions=info.verified_instructions or processed_instructions(log) or 0,
            verification_time_us=verification_time_us(log),
            jited_bytes=info.jited_size,
            maps=tuple(map_names[number] for number in info.map_ids if number in map_names),
            log=log,
            code=code.loaded(fact.name, program.instructions()),
            device_bound=is_device_bound(fact),
            maker=_MAKER,
        )
    frozen = {
        name: item.lookup(_FIRST_KEY) for name, item in maps.items() if name == _KCONFIG or name.startswith(".rodata")
    }
    return VerifiedObject(
        bound=bound,
        programs=MappingProxyType(programs),
        maps=MappingProxyType(maps),
        constants=MappingProxyType(frozen),
        params=MappingProxyType({constant.name: constant.data for constant in constants}),
        core_values=MappingProxyType(choices.core_values),
        externs=MappingProxyType(choices.externs),
        kconfig=MappingProxyType(_kconfig(code, choices, frozen)),
        reverified=bound.binding is Binding.MUST_REVERIFY,
        loaded=loaded,
        maker=_MAKER,
    )


def _kconfig(code: ObjectCode, choices: _Choices, frozen: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the kernel configuration that the programs read; every variable is a scalar or an array of bytes."""
    btf = code.object.btf
    types = {item.name: item.size_or_type for item in btf.data_section(_KCONFIG)} if btf is not None else {}
    content = frozen.get(_KCONFIG, b"")
    return {
        name: content[extern.value : extern.value + btf.size(types[name])]
        for name, extern in choices.externs.items()
        if btf is not None and extern.kind is ExternKind.KCONFIG
    }
