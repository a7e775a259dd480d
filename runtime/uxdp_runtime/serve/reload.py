"""What a new version of a network function takes over from the one that is served, and what it cannot.

A map is kept if the new version declares it alike: type, sizes, number of entries, flags, and the types of keys and
values. A map that is declared otherwise is a reason to refuse, unless its content may be dropped: then it starts empty.
A section of global data is kept if its variables have the same names, places and types; else it starts with what the
new version says. Constants are the new version's.

A prog_array that the new version declares alike has the new version's programs of the same names; one that nobody has
changed since its version started has what the new version puts into it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.confined_child import meanwhile
from uxdp_bundle.errors import UxdpError

from ..map_layout import Layout
from ..map_values import MapCodec
from ..stores import POOL, initial_programs
from ..verify import VerifiedObject
from .event_loop import EventLoop
from .loaded import Inheritance, Loaded, load
from .map_access import MapAccess
from .options import ServeOptions

_CONSTANTS: Final = (".rodata", ".kconfig")
_PROGRAMS: Final = "prog_array"
_TARGETS: Final = frozenset({"devmap", "devmap_hash", "cpumap"})
_FACTS: Final = {
    "type": "type",
    "key_size": "key size",
    "value_size": "value size",
    "max_entries": "entries",
    "flags": "flags",
}


class ReloadError(UxdpError):
    """A new version cannot take the place of the one that is served, which goes on."""

    exit_code: ClassVar[int] = 1


class ReloadTurns:
    """One reload at a time; the event loop goes on while LLVM works, so that whatever ends meanwhile is restarted."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._is_taken = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Reload within.

        :raises ReloadError: another one has not finished
        """
        if self._is_taken:
            raise ReloadError("another reload is under way", context="reload", remedy="try again when that is done")
        self._is_taken = True
        try:
            with meanwhile(self._loop.turn):
                yield
        finally:
            self._is_taken = False


class Version(Protocol):
    """What both modes of serving know of a version that they serve."""

    @property
    def verified(self) -> VerifiedObject:
        """The kernel's side of it."""
        ...

    @property
    def maps(self) -> MapAccess:
        """Its maps."""
        ...

    @property
    def object(self) -> bytes:
        """The object whose types the maps have."""
        ...

    @property
    def takes_frags(self) -> bool:
        """Whether it takes frames of several buffers."""
        ...


@dataclass(frozen=True, slots=True)
class Takeover:
    """Which maps are kept, start anew with what the new version says (``reset``), or lose their content (``dropped``).

    ``dropped`` are those that are declared otherwise, and those that the new version has not got. ``kernel_maps`` are
    descriptors of the kernel's maps that are kept, ``stored`` the names of maps whose store is.
    """

    kept: tuple[str, ...]
    reset: tuple[str, ...]
    dropped: tuple[str, ...]
    kernel_maps: Mapping[str, int]
    stored: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what became of the maps."""
        return {"kept": list(self.kept), "reset": list(self.reset), "dropped": list(self.dropped)}


def plan_takeover(old: Version, bound: BoundBundle, *, drop_maps: bool) -> Takeover:
    """Compare the maps of a new version with those that are served.

    :param drop_maps: whether maps that are declared otherwise may lose their content
    :raises ReloadError: they may not; ``context`` is the first such map
    """
    before = MapCodec.for_object(old.object)
    after = MapCodec.for_object(bytes(bound.authentic.bundle.object))
    kept: list[str] = []
    reset: list[str] = []
    dropped = [name for name in before if name not in after and not name.startswith(_CONSTANTS)]
    # Maps of maps last, for they may lead to the others.
    for name, codec in sorted(after.items(), key=lambda item: item[1].inner is not None):
        if name.startswith(_CONSTANTS) or name not in before:
            continue
        difference = describe_difference(before[name], codec)
        if not difference and codec.inner is not None:
            difference = _moved(old, bound, name, kept)
        if not difference and codec.definition.type in _TARGETS:
            difference = _moved_programs(old, bound, name)
        if not difference:
            kept.append(name)
        elif codec.is_global_data:
            reset.append(name)
        elif drop_maps:
            dropped.append(name)
        else:
            raise ReloadError(
                f"{difference}, so that its content cannot be kept",
                context=f"map {name}",
                remedy="say --drop-maps to let such maps start empty",
            )
    kinds = {name: before[name].definition.type for name in kept}
    # A prog_array of the kernel belongs to the programs that it was made for.
    return Takeover(
        tuple(kept),
        tuple(reset),
        tuple(dropped),
        {name: old.verified.maps[name].fd for name in kept if name in old.verified.maps and kinds[name] != _PROGRAMS},
        tuple(name for name in kept if kinds[name] != _PROGRAMS and not _is_kernels(old, name)),
    )


def check_frags(old: Version, new: Version) -> None:
    """Refuse a version that takes frames of several buffers where the other does not: attaching decides that.

    :raises ReloadError: it does not fit
    """
    if old.takes_frags != new.takes_frags:
        raise ReloadError(
            "one version takes frames of several buffers, the other does not, which is fixed when it is attached",
            context=new.verified.bound.authentic.bundle.path,
            remedy="stop the service and start it again",
        )


def carry_programs(old: Version, new: Version, takeover: Takeover, *, drop_maps: bool) -> None:
    """Let prog_arrays lead to the new version's programs of the same names.

    :raises ReloadError: one leads to a program that the new version has not got, and may not lose it
    """
    initial = initial_programs(old.object)
    for definition in old.verified.bound.facts.maps:
        name = definition.name
        if definition.type != _PROGRAMS or name not in takeover.kept:
            continue
        now = old.maps.programs_in(name)
        if now == initial.get(name, {}):
            continue
        lost = [program for program in now.values() if program not in new.verified.programs]
        if lost and not drop_maps:
            raise ReloadError(
                f"leads to the program {lost[0]}, which the new version has not got",
                context=f"map {name}",
                remedy="delete that element, or say --drop-maps",
            )
        new.maps.put_programs(name, {key: program for key, program in now.items() if program not in lost})


def _is_kernels(old: Version, name: str) -> bool:
    """Whether native code works on the kernel's own pages of a map: there is no store of it."""
    return name.startswith(".") or (name in old.verified.maps and old.verified.maps[name].is_mappable)


def _moved_programs(old: Version, bound: BoundBundle, name: str) -> str:
    """Return why a devmap or cpumap cannot go on naming the programs that it does, or an empty string."""
    before = [fact.name for fact in old.verified.bound.facts.programs]
    after = [(fact.name, fact.flags) for fact in bound.facts.programs]
    flags = {fact.name: fact.flags for fact in old.verified.bound.facts.programs}
    for program in sorted(old.maps.onward_in(name)):
        index = before.index(program)
        if after[index : index + 1] != [(program, flags[program])]:
            return f"names the program {program}, which the new version has not got, or in another place"
    return ""


def _moved(old: Version, bound: BoundBundle, name: str, kept: Sequence[str]) -> str:
    """Return why a map of maps cannot go on leading where it does, or an empty string."""
    before, after = (
        [definition.name for definition in facts.maps if not definition.name.startswith(".")]
        for facts in (old.verified.bound.facts, bound.facts)
    )
    for inner in sorted(old.maps.declared_in(name)):
        if inner not in kept or before.index(inner) != after.index(inner):
            return f"leads to the map {inner}, which the new version declares otherwise, or in another place"
    return ""


def describe_difference(before: MapCodec, after: MapCodec) -> str:
    """Return how two declarations of a map differ, or an empty string."""
    for field, what in _FACTS.items():
        was, now = getattr(before.definition, field), getattr(after.definition, field)
        if was != now:
            return f"{what} {was} became {now}"
    if before.inner is not None and after.inner is not None:
        difference = describe_difference(before.inner, after.inner)
        if difference:
            return f"of its inner maps, {difference}"
    for side in ("key", "value"):
        if after.inner is not None and side == "value":
            continue
        if _shape(getattr(before, side)) != _shape(getattr(after, side)):
            return f"the type of its {side if not after.is_global_data else 'variables'} is another"
    return ""


def _shape(value: Any) -> Any:
    """Return everything that a layout says, as something that can be compared."""
    if isinstance(value, Layout):
        return type(value).__name__, _shape(vars(value))
    if isinstance(value, Mapping):
        return tuple((key, _shape(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_shape, value))
    return value


def load_successor(
    old: Loaded,
    bound: BoundBundle,
    options: ServeOptions,
    num_workers: int,
    *,
    drop_maps: bool,
    resources: ExitStack,
) -> tuple[Loaded, Takeover]:
    """Make a new version ready to be served, with what it takes over from the old one.

    :param drop_maps: whether maps that are declared otherwise may lose their content
    :param resources: what is closed with the version; owned from then on, also after an error
    :raises ReloadError: it cannot take over the maps, or not the interfaces
    :raises UxdpError: whatever verifying and compiling raises
    """
    with ExitStack() as stack:
        stack.push(resources)
        takeover = plan_takeover(old, bound, drop_maps=drop_maps)
        memory = {name: old.stores[name].shared_memory for name in takeover.stored}
        if old.stores.inner_memory is not None:
            memory[POOL] = old.stores.inner_memory
        inherited = Inheritance(takeover.kernel_maps, memory)
        new = load(bound, options, num_workers, inherited=inherited, resources=stack.pop_all())
        stack.callback(new.close)
        check_frags(old, new)
        carry_programs(old, new, takeover, drop_maps=drop_maps)
        stack.pop_all()
        return new, takeover
