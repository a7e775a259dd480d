"""The kernel mode: the same bundle, verified, attached in the kernel; nothing is native.

The verified program itself is attached to the interfaces by bpf_link, and the kernel's maps are the maps. The process
is only there to hold the links: when it ends, however it ends, frames reach the kernel's stack as ever. A reload puts
the new program into the links, so that each frame meets one of both.
"""

import logging
import os
import selectors
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError

from ..bpf import syscall
from ..bpf.maps import Map
from ..errors import BpfError
from ..map_file import read_map_file
from ..ports.attachment import attach_by_link, await_detached, detach_other
from ..ports.interface import Interface
from ..verify import VerifiedObject, VerifiedProgram, verify
from . import events
from .af_xdp_port import usable_interface
from .control_socket import ControlSocket
from .event_loop import EventLoop
from .handover import Orphan
from .interface_watch import InterfaceWatch
from .loaded import program_name, programs_to_verify
from .map_access import MapAccess, map_handlers
from .options import ServeOptions
from .pinning import Pins
from .reload import ReloadTurns, carry_programs, check_frags, plan_takeover
from .service import OpenBundle


@dataclass(frozen=True, slots=True)
class KernelVersion:
    """A version that the kernel runs. Close it when no link holds its program any more."""

    verified: VerifiedObject
    maps: MapAccess
    program: VerifiedProgram
    resources: ExitStack

    @property
    def object(self) -> bytes:
        """The object whose types the maps have."""
        return bytes(self.verified.bound.authentic.bundle.object)

    @property
    def takes_frags(self) -> bool:
        """Whether it takes frames of several buffers."""
        return "frags" in self.program.flags

    @property
    def pinned_maps(self) -> dict[str, Map]:
        """All maps but constants."""
        return {
            name: table for name, table in self.verified.maps.items() if not name.startswith((".rodata", ".kconfig"))
        }

    def close(self) -> None:
        """Give up the program and maps, and the bundle."""
        self.resources.close()


@dataclass(slots=True)
class _Attached:
    interface: Interface
    link: int
    is_generic: bool


class KernelService:
    """A program that the kernel runs, with the commands of a service. Close it, or use it as a context manager."""

    def __init__(self, bound: BoundBundle, options: ServeOptions, open_bundle: OpenBundle | None = None) -> None:
        """Verify and attach.

        :param open_bundle: opens, authenticates and binds what a reload names; None: reloads are refused
        :raises PortError: an interface cannot be had
        :raises UxdpError: whatever verifying raises
        """
        self.options = options
        self.name = options.name or bound.authentic.bundle.manifest.name
        self.started = time.time()
        self._open_bundle = open_bundle
        self._bundle = options.bundle
        self._loop = EventLoop(terminate=lambda: self.stop("by a signal"))
        self._turns = ReloadTurns(self._loop)
        self._attached: list[_Attached] = []
        with ExitStack() as stack:
            stack.enter_context(ControlSocket(self.name, self._loop.selector, self._handlers()))
            interfaces = [usable_interface(name) for name in options.interfaces]
            self.version = _load(bound, options, None, ExitStack())
            stack.callback(lambda: self.version.close())
            orphan = Orphan.find(self.name)
            if orphan is not None:
                with orphan:
                    orphan.stop()
                    await_detached(interfaces)
            for target in interfaces:
                if options.replace:
                    detach_other(target)
                link, is_generic = attach_by_link(self.version.program.fd, target, options.generic)
                stack.callback(os.close, link)
                self._attached.append(_Attached(target, link, is_generic))
                events.report_attached(target.name, is_generic=is_generic, asked=options.generic is True)
            self._pins = stack.enter_context(Pins(self.name))
            self._pins.replace(self.version.pinned_maps)
            if self._pins.reason:
                events.report("not-pinned", f"maps are not pinned: {self._pins.reason}", reason=self._pins.reason)
            self._resources = stack.pop_all()
        self._watch = InterfaceWatch([item.interface for item in self._attached])
        self._loop.every_tick(self._watch.look)
        self._loop.on_hangup(self._on_hangup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach, and give up everything."""
        self._resources.close()
        self._loop.close()

    @property
    def selector(self) -> selectors.BaseSelector:
        """The event loop's."""
        return self._loop.selector

    def every_tick(self, action: Callable[[], None]) -> None:
        """Have something done several times a second, in the event loop."""
        self._loop.every_tick(action)

    def run(self) -> None:
        """Stay attached until SIGTERM or SIGINT."""
        self._loop.run()

    def stop(self, reason: str = "asked to") -> None:
        """Let ``run`` return."""
        events.report("stopping", f"stopping: {reason}", reason=reason)
        self._loop.stop()

    def status(self, _request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what runs, on what, since when; as of a native service, with no data process and no queues."""
        bundle = self.version.verified.bound.authentic.bundle
        return {
            "name": self.name,
            "mode": "kernel",
            "bundle": bundle.path,
            "bundle_id": bundle.bundle_id,
            "program": self.version.program.name,
            "program_id": self.version.program.id,
            "pid": os.getpid(),
            "data_pid": None,
            "serving": True,
            "restarts": 0,
            "started": self.started,
            "uptime_seconds": round(time.time() - self.started, 1),
            "interfaces": [
                {
                    "name": item.interface.name,
                    "ifindex": item.interface.index,
                    "gone": self._watch.is_gone(item.interface.index),
                    "attached": "generic" if item.is_generic else "native",
                    "queues": [],
                }
                for item in self._attached
            ],
        }

    def stats(self, _request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what the kernel counts: runs and their time, if ``sysctl kernel.bpf_stats_enabled`` is 1."""
        info = syscall.program_info(self.version.program.fd)
        return {
            "name": self.name,
            "time": time.time(),
            "restarts": 0,
            "queues": [],
            "kernel": {"program_id": info.id, "runs": info.runs, "run_ns": info.run_ns},
        }

    def reload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Attach another version in the place of this one; see ``Service.reload``.

        :raises UxdpError: the old version goes on
        """
        if self._open_bundle is None:
            raise UnsupportedFeatureError("reload", "this service was not told how to open bundles")
        name = str(request.get("bundle") or self._bundle)
        drop_maps = bool(request.get("drop_maps", False))
        with self._turns.taken(), ExitStack() as stack:
            bound = stack.enter_context(self._open_bundle(name))
            takeover = plan_takeover(self.version, bound, drop_maps=drop_maps)
            version = _load(bound, self.options, takeover.kernel_maps, stack.pop_all())
            stack.callback(version.close)
            check_frags(self.version, version)
            carry_programs(self.version, version, takeover, drop_maps=drop_maps)
            self._replace(version)
            old, self.version, self._bundle = self.version, version, name
            stack.pop_all()
        old.close()
        self._pins.replace(self.version.pinned_maps)
        bundle = bound.authentic.bundle
        done = {"bundle": bundle.path, "bundle_id": bundle.bundle_id, **takeover.as_json(), "pause_ms": 0.0}
        events.report("reloaded", "the kernel runs it now", **done)
        return done

    def _replace(self, version: KernelVersion) -> None:
        """Put a version into all links, or into none; those of interfaces that are gone lead nowhere."""
        self._watch.look()
        links = [item.link for item in self._attached if not self._watch.is_gone(item.interface.index)]
        try:
            for link in links:
                syscall.update_link(link, version.program.fd)
        except BpfError:
            for link in links:
                syscall.update_link(link, self.version.program.fd)
            raise

    def _on_hangup(self) -> None:
        try:
            self.reload({})
        except UxdpError as error:
            events.report("reload_refused", f"not reloaded: {error}", level=logging.ERROR, reason=str(error))

    def _handlers(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "status": self.status,
            "stats": self.stats,
            "stop": lambda _request: self.stop(),
            "reload": self.reload,
            **map_handlers(lambda: self.version.maps),
        }


def _load(
    bound: BoundBundle, options: ServeOptions, kept: Mapping[str, int] | None, resources: ExitStack
) -> KernelVersion:
    """Verify, and fill the maps as the options say, unless they are kept.

    :param kept: descriptors of an older version's maps; None: there is no older version
    :param resources: what is closed with the version; owned from then on
    """
    with ExitStack() as stack:
        stack.push(resources)
        name = program_name(bound, options)
        verified = stack.enter_context(
            verify(
                bound,
                programs=programs_to_verify(bound, name),
                params=options.params,
                share_arrays=True,
                reuse=kept or {},
            )
        )
        verified.programs[name].check_runs_in_kernel("with --mode kernel")
        obj = bytes(bound.authentic.bundle.object)
        maps = MapAccess(obj, verified, {}, mirror=False)
        if kept is None:
            maps.fill(read_map_file(obj, options.maps or None, options.assignments, codecs=maps.codecs))
        return KernelVersion(verified, maps, verified.programs[name], stack.pop_all())
