"""Where the kernel sends frames, for programs that redirect: a second copy of a verified object that receives frames.

BPF_PROG_TEST_RUN does not tell a redirect's target, so the same frames also run through a twin: the same object, loaded
and verified once more, with maps of its own that are filled alike, in a network namespace of its own; see
bpf.redirect_probe. Devices that a devmap names exist there, too, under the same index.
"""

import struct
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, Self

from uxdp_bundle.errors import UnsupportedFeatureError

from .bpf.inner_maps import KernelMaps
from .bpf.network_namespace import LOOPBACK_IFINDEX, NetworkNamespace
from .bpf.perf_buffer import PerfBuffer
from .bpf.redirect_probe import RedirectProbe
from .bpf.ring_buffer import RingBuffer
from .compile.asking import HELPERS as ASKING
from .errors import BpfError
from .frames.generate import Frame
from .outcomes import Redirect
from .steps import MapChange
from .verify import VerifiedObject, verify

_REDIRECTING: Final = frozenset({"bpf_redirect", "bpf_redirect_map"})
_DEVMAPS: Final = frozenset({"devmap", "devmap_hash"})
_PEER_IFINDEX: Final = 0x7FFE_0000  # of the other ends of devices: far from where systems count


def redirects(verified: VerifiedObject) -> bool:
    """Whether a program of an object may redirect frames, as far as its helpers tell."""
    return any(_REDIRECTING & set(program.helpers) for program in verified.bound.facts.programs)


class RedirectTwin:
    """A second copy of a verified object, that redirects frames. Close it, or use it as a context manager."""

    def __init__(self, verified: VerifiedObject, program: str) -> None:
        """Load the object once more.

        :raises UnsupportedFeatureError: targets cannot be found out here, or for this program; it says why
        """
        asking = sorted(ASKING.keys() & {name for fact in verified.bound.facts.programs for name in fact.helpers})
        if asking:
            raise UnsupportedFeatureError(
                "redirect targets", f"the answers of {asking[0]} depend on the network namespace"
            )
        self._devices = {LOOPBACK_IFINDEX}
        with ExitStack() as stack:
            self._namespace = stack.enter_context(NetworkNamespace())
            self._copy = stack.enter_context(verify(verified.bound, programs=verified.programs, params=verified.params))
            self._copies = KernelMaps(verified.bound.facts.maps, self._copy.maps)
            self._maps = {item.info.id: name for name, item in self._copy.maps.items()}
            self._rings = {
                name: stack.enter_context(RingBuffer(item))
                for name, item in self._copy.maps.items()
                if item.type == "ringbuf"
            }
            self._samples = [
                stack.enter_context(PerfBuffer(item))
                for item in self._copy.maps.values()
                if item.type == "perf_event_array"
            ]
            try:
                self._probe = stack.enter_context(RedirectProbe(self._copy.programs[program].fd, self._namespace))
            except BpfError as cause:
                raise UnsupportedFeatureError("redirect targets", str(cause)) from cause
            self._resources = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up the copy, and the namespace."""
        self._resources.close()

    def fill(self, name: str, items: Sequence[tuple[bytes, bytes]], originals: KernelMaps) -> None:
        """Give a map of the copy, and the original, elements as stores have them.

        A devmap takes devices of the caller's namespace only, so both are filled in the twin's, where all indices are.
        """
        item = self._copy.maps.get(name)
        if item is not None and item.type in _DEVMAPS:
            for _key, value in items:
                self._add_device(struct.unpack_from("=I", value)[0])
        with self._namespace.entered():
            originals.update(name, items)
            self._copies.update(name, items)

    def change(self, change: MapChange, originals: KernelMaps) -> int:
        """Change a map of the copy, and the original; return the errno of its refusal, or 0. See ``fill``."""
        with self._copies.open(change.map) as item, originals.open(change.map) as original:
            if item.type in _DEVMAPS and change.value is not None:
                self._add_device(struct.unpack_from("=I", change.value)[0])
            with self._namespace.entered():
                change.apply(item)
                return change.apply(original)

    def link(self, name: str, key: bytes, program: str) -> None:
        """Put a program into a prog_array of the copy."""
        self._copy.maps[name].update(key, struct.pack("=I", self._copy.programs[program].fd))

    def run(self, frame: Frame) -> Redirect | None:
        """Run the program on a frame; return where it went, or None if it was not redirected.

        :raises BpfError: the kernel takes no such frame for a live one
        """
        found = self._probe.run(frame.data, metadata=frame.metadata)
        for samples in self._samples:
            samples.take()
        if found is None:
            return None
        # A program may return XDP_REDIRECT without having named a target: then the map's number is 0.
        name = None if found.map_id is None else self._maps.get(found.map_id)
        return Redirect(name, found.index, found.is_broadcast)

    def release_records(self, name: str) -> None:
        """Empty a ring buffer."""
        self._rings[name].release()

    def _add_device(self, ifindex: int) -> None:
        # An index that no device can have is for the kernel to refuse.
        if ifindex not in self._devices and 0 < ifindex < _PEER_IFINDEX:
            self._namespace.add_device(ifindex, _PEER_IFINDEX + len(self._devices))
            self._devices.add(ifindex)
