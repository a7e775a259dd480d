"""Load one object with libbpf, and explain it when the kernel refuses.

A refused program is loaded again with the verifier's log, in a buffer that grows until the log fits. All other
refusals are explained by what this process or kernel lacks, which is found out by looking and trying, never by the
kernel's version.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uxdp_bundle.bpf_object import STT_FUNC, STT_OBJECT, BpfObject
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError
from uxdp_bundle.facts import ObjectFacts
from uxdp_bundle.manifest import Program
from uxdp_bundle.map_definitions import MAP_TYPES

from ..errors import LoadError, ParameterError, VerifierError, errno_text
from . import capabilities
from .constants import Constant
from .libbpf import LibbpfObject, kernel_has_map_type
from .network_namespace import NetworkNamespace
from .relocation import ObjectCode
from .syscall import PROG_TYPE_XDP
from .timer_fields import lock_fields, timer_fields
from .verifier_log import LOG_LEVEL, LOG_STATS, parse_refusal

# The first try asks for statistics alone; the others are made after a refusal, until the whole log fits: of the program
# that was refused, for the kernel takes no program whose log does not fit. From Linux 6.4 on, a log that does not fit
# even then keeps its end, where the reason is.
_LOGS: Final = (
    (LOG_STATS, 64 << 10),
    *((LOG_LEVEL | LOG_STATS, size_bytes) for size_bytes in (1 << 20, 8 << 20, 64 << 20)),
)
# Programs that call these are loaded for one device (BPF_F_XDP_DEV_BOUND_ONLY), whose driver has to know them: its own
# functions are called. To be verified, such a program is loaded for a veth that is there for nothing else.
# Source: kernel/bpf/verifier.c, fixup_kfunc_call; kernel/bpf/offload.c, bpf_dev_bound_kfunc_check
_METADATA_KFUNCS: Final = frozenset(
    ("bpf_xdp_metadata_rx_hash", "bpf_xdp_metadata_rx_timestamp", "bpf_xdp_metadata_rx_vlan_tag")
)
_DEVICE, _PEER = 2, 3  # ifindex of its ends, in a namespace of their own
_BPF_XDP: Final = 37  # enum bpf_attach_type
_ARRAY: Final = MAP_TYPES.index("array")
_BPF_F_MMAPABLE: Final = 1 << 10  # include/uapi/linux/bpf.h
_MANUAL: Final = "manual"  # the flag of a program in SEC("?…")
_PROGRAM_REFUSED: Final = re.compile(r"prog '(?P<name>[^']+)': BPF program load failed")
# What the verifier says if libbpf left out the function that a declaration tag "exception_callback" names.
_NO_HANDLER: Final = "exception callback type id not found"
_VMLINUX_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_KERNEL_CONFIGS: Final = (Path("/proc/config.gz"), Path("/boot") / f"config-{os.uname().release}")
_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load, and how.

    ``name`` is the prefix of the kernel names of global data, ``context`` what error messages say of the object.
    ``programs`` are those to load; others are loaded too where a prog_array refers to them from the start.
    ``pin_path`` is a folder of a bpffs to pin declared maps in, or to take them from; ``reuse`` are descriptors of
    maps to use instead of new ones, by name. ``share_arrays``: declared arrays can be mapped into memory.
    """

    data: bytes | memoryview
    name: str
    context: str
    facts: ObjectFacts
    programs: Collection[str]
    constants: tuple[Constant, ...]
    max_entries: Mapping[str, int]
    pin_path: str | None
    reuse: Mapping[str, int]
    share_arrays: bool = False


def default_programs(facts: ObjectFacts) -> tuple[str, ...]:
    """Return the programs that a loader loads without being told: all but those in ``SEC("?…")``.

    :raises ParameterError: there are none
    """
    names = tuple(program.name for program in facts.programs if _MANUAL not in program.flags)
    if not names:
        known = ", ".join(program.name for program in facts.programs)
        raise ParameterError("all programs are of the kind that is loaded only if named", remedy=f"name one of {known}")
    return names


def is_device_bound(program: Program) -> bool:
    """Return whether the kernel loads a program for one device alone: it asks for what hardware knows of frames.

    The kernel runs it in no test, and attaches it to no other device.
    """
    return bool(_METADATA_KFUNCS.intersection(program.kfuncs))


def load(request: LoadRequest, code: ObjectCode) -> LibbpfObject:
    """Load an object; the caller closes it.

    :param code: the same object, for the source line of a refusal
    :raises VerifierError: the verifier refused a program
    :raises MissingCapabilityError: this process may not load programs
    :raises UnsupportedFeatureError: this kernel or libbpf lacks something that the object needs
    :raises LoadError: libbpf or the kernel refused for another reason
    :raises ParameterError: a map that the object has not got
    """
    refused_program = ""
    for level, size_bytes in _LOGS:
        loaded = _open(request)
        try:
            _prepare(loaded, request, code.object)
            for program in loaded.programs:
                program.set_log(*((level, size_bytes) if program.name == refused_program else _LOGS[0]))
            with _device_of(request):
                loaded.load()
        except LoadError as refused:
            error = _explained(refused, request, loaded, code)
            truncated = refused.errno == errno.ENOSPC and size_bytes < _LOGS[-1][1]
            loaded.close()
            try:
                if not isinstance(error, VerifierError) or (level & LOG_LEVEL and not truncated):
                    raise error from refused
                refused_program = error.program
            finally:
                del error  # a frame that refers to the error that refers to it would keep the sealed memory open
        except BaseException:
            loaded.close()
            raise
        else:
            return loaded
    raise AssertionError("the last log ends in a return or an error")


@contextmanager
def _device_of(request: LoadRequest) -> Iterator[None]:
    """Have the device there that device-bound programs are loaded for, if there are any."""
    if not any(is_device_bound(program) for program in request.facts.programs):
        yield
        return
    with NetworkNamespace() as namespace:
        namespace.add_device(_DEVICE, _PEER)
        with namespace.entered():
            yield


def _open(request: LoadRequest) -> LibbpfObject:
    try:
        return LibbpfObject(request.data, _NOT_IN_NAME.sub("_", request.name))
    except LoadError as error:
        error.context = request.context
        raise


def _prepare(loaded: LibbpfObject, request: LoadRequest, bpf_object: BpfObject) -> None:
    """Tell libbpf everything that the request says."""
    known_programs = {program.name for program in request.facts.programs}
    wanted = {*request.programs, *_initial_targets(bpf_object, STT_FUNC)} & known_programs
    device_bound = {program.name for program in request.facts.programs if is_device_bound(program)}
    for program in loaded.programs:
        is_wanted = program.name in wanted
        program.set_autoload(is_wanted)
        if not is_wanted:
            continue
        if program.type == 0:
            # A section such as "xdp_router": libbpf knows no such name, and users of older versions gave the type.
            program.set_type(PROG_TYPE_XDP, _BPF_XDP, 0)
        if program.name in device_bound:
            program.bind_to_device(_DEVICE)
    maps = {item.name: item for item in loaded.maps}
    for constant in request.constants:
        maps[constant.section].write_initial(constant.offset, constant.data)
    for name, max_entries in request.max_entries.items():
        if name not in maps or maps[name].section:
            known = ", ".join(item.name for item in loaded.maps if not item.section) or "none"
            raise ParameterError(f"the bundle declares no such map, but {known}", context=f"map {name}")
        maps[name].set_max_entries(max_entries)
    # The kernel takes only maps of the template's flags into a map of maps, and lets nobody map values with
    # timers or locks.
    private = (
        _initial_targets(bpf_object, STT_OBJECT) | timer_fields(bpf_object).keys() | lock_fields(bpf_object).keys()
    )
    for item in loaded.maps:
        if item.section:
            if item.name in request.reuse:
                item.reuse_fd(request.reuse[item.name])
            continue
        # Maps that say "pin me by name" too: nothing is left behind where nobody asked for it.
        item.set_pin_path(None if request.pin_path is None else str(Path(request.pin_path) / item.name))
        if item.name in request.reuse:
            item.reuse_fd(request.reuse[item.name])
        elif request.share_arrays and item.definition()[0] == _ARRAY and item.name not in private:
            item.add_flags(_BPF_F_MMAPABLE)


def _initial_targets(bpf_object: BpfObject, kind: str) -> set[str]:
    """Return the programs, or the maps, that are in a map from the start: libbpf needs them loaded to fill it."""
    section = bpf_object.section(".maps")
    relocations = bpf_object.relocations.get(section.index, {}) if section is not None else {}
    return {relocation.symbol.name for relocation in relocations.values() if relocation.symbol.type == kind}


def _explained(refused: LoadError, request: LoadRequest, loaded: LibbpfObject, code: ObjectCode) -> UxdpError:
    """Return the error that says best why an object was not loaded."""
    context = request.context
    if refused.errno == errno.EPERM:
        lacking = capabilities.explain_refusal("loading XDP programs", context=context)
        if lacking is not None:
            return lacking
    match = next(filter(None, map(_PROGRAM_REFUSED.search, refused.messages)), None)
    if match is not None:
        error = _verifier_error(refused, match["name"], loaded, code, context)
        if error is not None:
            return error
    for feature in request.facts.kernel:
        name = feature.removeprefix("kfunc:")
        if name != feature and any(f"'{name}': not found" in message for message in refused.messages):
            return UnsupportedFeatureError(
                f"kfunc {name}",
                "this kernel has none, the program calls it",
                context=context,
                remedy="use a newer kernel, or load the module that defines it",
            )
    for definition in request.facts.maps:
        kind = definition.type
        number = MAP_TYPES.index(kind) if kind in MAP_TYPES else int(kind.removeprefix("type#"))
        if kernel_has_map_type(number) is False:
            return UnsupportedFeatureError(
                f"map type {kind}", f"this kernel has none, the map {definition.name} is one", context=context
            )
    if "core" in request.facts.kernel and not _VMLINUX_BTF.exists():
        return UnsupportedFeatureError(
            "kernel BTF",
            f"CO-RE needs {_VMLINUX_BTF}, which this kernel does not offer",
            context=context,
            remedy="use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        )
    if "kconfig" in request.facts.kernel and not any(path.exists() for path in _KERNEL_CONFIGS):
        return UnsupportedFeatureError(
            "kernel configuration",
            f"the program asks for it, and there is neither {' nor '.join(map(str, _KERNEL_CONFIGS))}",
            context=context,
            remedy="use a kernel built with CONFIG_IKCONFIG_PROC=y, or install its configuration file",
        )
    refused.context = context
    if refused.errno == errno.EPERM:
        refused.remedy = "something refuses bpf(2) whatever the capabilities: a container's seccomp filter, or lockdown"
    return refused


def _verifier_error(
    refused: LoadError, program: str, loaded: LibbpfObject, code: ObjectCode, context: str
) -> VerifierError | None:
    """Return what the verifier's log says; None if the kernel refused before the verifier had a look."""
    log = next((item.log() for item in loaded.programs if item.name == program), "")
    refusal = parse_refusal(log)
    if not refusal.reason and refusal.instruction is None:
        return None
    source = None
    if refusal.instruction is not None:
        places = code.places_of(program)
        if refusal.instruction < len(places):
            source = code.line_at(places[refusal.instruction])
    remedy = ""
    number = refused.errno or errno.EINVAL
    if number in (errno.EACCES, errno.EPERM) and capabilities.lacks_perfmon():
        remedy = "this process lacks CAP_PERFMON, without which the verifier allows less: give it that, or run as root"
    elif refusal.reason.startswith(_NO_HANDLER):
        remedy = (
            "use libbpf 1.3 or newer, which loads a handler of exceptions with its program, or refer to the handler in "
            "a branch that is never taken"
        )
    return VerifierError(
        number,
        program,
        refusal.reason or errno_text(number),
        log=log,
        instruction=refusal.instruction,
        source=source,
        messages=refused.messages,
        context=context,
        remedy=remedy,
    )
