"""One version of a network function, ready to run: verified, compiled, with its maps; what a reload replaces.

What an older version leaves to this one (``Inheritance``) is used as it is: the kernel's arrays, whose pages native
code works on, are the same kernel maps; other stores are the same memory.
"""

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from types import MappingProxyType

from uxdp_bundle.binding import BoundBundle

from ..bpf.maps import Map
from ..compile.cache import cache_directory
from ..compile.program import CompiledProgram, compile_program
from ..kernel_state import kernel_state_for
from ..map_file import read_map_file
from ..native_module import NativeModule
from ..ports.attachment import Fallback
from ..stores import StoreMemory, Stores, control_library
from ..verify import VerifiedObject, VerifiedProgram, verify
from .map_access import MapAccess
from .options import ServeOptions
from .route_watch import RouteWatch

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a version takes over: kernel maps (descriptors) and the stores' memory, both by the maps' names."""

    kernel_maps: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    memory: Mapping[str, StoreMemory] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that can be served. Close it when nothing runs it any more."""

    verified: VerifiedObject
    compiled: CompiledProgram
    stores: Stores
    maps: MapAccess
    workers: tuple[NativeModule, ...]
    watch: RouteWatch | None  # None: the program asks the kernel nothing
    resources: ExitStack

    def close(self) -> None:
        """Give up the kernel's programs and maps, and whatever else was opened for this version."""
        self.resources.close()

    @property
    def object(self) -> bytes:
        """The object whose types the maps have."""
        return self.compiled.source.object

    @property
    def shared_maps(self) -> dict[str, Map]:
        """The kernel's maps whose pages the native program works on: arrays and global data that can change."""
        return {
            name: self.verified.maps[name]
            for name in (definition.name for definition in self.compiled.source.maps)
            if name in self.verified.maps and _is_shared(self.verified.maps[name])
        }

    @property
    def questions(self) -> Counter[str]:
        """How often the program asked the kernel, how often that failed, and how often an answer was remembered."""
        total: Counter[str] = Counter()
        for worker in self.workers:
            if worker.kernel is not None:
                total.update(asdict(worker.kernel.questions))
        return total

    @property
    def program(self) -> VerifiedProgram:
        """The verified program that is served."""
        return self.verified.programs[self.compiled.source.entry]

    @property
    def takes_frags(self) -> bool:
        """Whether it takes frames of several buffers."""
        return "frags" in self.program.flags


def _is_shared(table: Map) -> bool:
    """Whether native code works on the kernel's own pages of an array: not of one that is in a map of maps."""
    if table.name.startswith("."):
        return table.type == "array" and not table.name.startswith((".rodata", ".kconfig"))
    return table.is_mappable


def program_name(bound: BoundBundle, options: ServeOptions) -> str:
    """Return the program that is served: the one that was named, or the bundle's first."""
    return options.program or bound.facts.programs[0].name


def programs_to_verify(bound: BoundBundle, name: str) -> list[str]:
    """Return the programs that are loaded to serve one: it, and all that need not be named (``SEC("?…")``)."""
    return [fact.name for fact in bound.facts.programs if fact.name == name or "manual" not in fact.flags]


def load(
    bound: BoundBundle,
    options: ServeOptions,
    num_workers: int,
    *,
    inherited: Inheritance | None = None,
    resources: ExitStack | None = None,
) -> Loaded:
    """Verify, compile, make the stores, fill them as the options say, and load the code for every worker.

    :param inherited: what an older version leaves; the options' map contents are then not set again
    :param resources: what is closed with the version, such as its bundle; owned from then on
    :raises UxdpError: whatever verifying and compiling raises; nothing stays open
    """
    kept = inherited if inherited is not None else Inheritance()
    with ExitStack() as stack:
        if resources is not None:
            stack.push(resources)
        name = program_name(bound, options)
        verified = stack.enter_context(
            verify(
                bound,
                programs=programs_to_verify(bound, name),
                params=options.params,
                share_arrays=True,
                reuse=kept.kernel_maps,
            )
        )
        if options.on_failure is Fallback.KERNEL:
            verified.programs[name].check_runs_in_kernel("in the place of native code")
        compiled = compile_program(verified, name, None, num_cpus=num_workers, cache_directory=cache_directory())
        source = compiled.source
        given = {
            definition.name: verified.maps[definition.name].mmap()
            for definition in source.maps
            if definition.name in verified.maps and _is_shared(verified.maps[definition.name])
        }
        stores = Stores(
            source.object, source.maps, num_workers, control_library(), given=given, kept=kept.memory, shared=True
        )
        stack.callback(stores.close)
        stores.link_programs(source.object, source.programs)
        maps = MapAccess(
            source.object,
            verified,
            {store.definition.name: store for store in stores},
            mirror=options.on_failure is Fallback.KERNEL,
            ifindexes=options.device_ifindexes(),
        )
        if inherited is None:
            maps.fill(
                read_map_file(
                    source.object, options.maps or None, options.assignments, cpus=num_workers, codecs=maps.codecs
                )
            )
        workers = tuple(_worker(compiled, stores, number, stack) for number in range(num_workers))
        asks = any(worker.kernel is not None for worker in workers)
        watch = stack.enter_context(RouteWatch()) if asks else None
        return Loaded(verified, compiled, stores, maps, workers, watch, stack.pop_all())


def _worker(compiled: CompiledProgram, stores: Stores, number: int, stack: ExitStack) -> NativeModule:
    """Load the code for one worker, with what it asks the kernel by."""
    kernel = kernel_state_for(compiled.native.data, compiled.helpers)
    if kernel is not None:
        stack.enter_context(kernel)
    seed = int.from_bytes(os.urandom(8), "little")
    return NativeModule(compiled.native.data, stores, number, seed=seed, kernel=kernel, runs_onward=True)
