"""A service: verified and compiled code on interfaces, served by a data process that is replaced when it ends.

The control process is one thread with one event loop (it forks data processes, and a fork copies one thread). It holds
every descriptor: when it and the data process are gone, so are the links, and frames reach the kernel's stack as ever.
While no data process serves, ``away`` is set and the interfaces' programs do what the fallback says.

The order of things when serving starts, so that no frame is lost or seen twice: programs are attached, away; sockets
are bound; a data process is forked and says that it is ready; it is told to go; away is cleared. When it ends without
being told to, away is set, and the next one goes on from the same rings and stores.
"""

import logging
import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, Self

from uxdp_bundle.binding import BoundBundle
from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError

from ..errors import PortError
from . import events
from .af_xdp_port import AfXdpPort
from .control_socket import ControlSocket, Handler
from .data_process import DataProcess, Worker, fork_data_process
from .dpdk_port import DpdkPortSet
from .event_loop import EventLoop
from .handover import Estate, data_socket_path, listen, take_over
from .loaded import Loaded, load
from .map_access import map_handlers
from .options import ServeOptions
from .pinning import Pins
from .port import Port
from .reload import ReloadTurns, load_successor

_READY_SECONDS: Final = 15.0  # DPDK has devices to find and to reset
_STOP_SECONDS: Final = 5.0
# A data process that ends again and again is restarted ever more slowly, so that the fallback is in force meanwhile.
_SECOND_PAUSE_SECONDS: Final = 0.02
_MAX_PAUSE_SECONDS: Final = 5.0
_STABLE_SECONDS: Final = 10.0


OpenBundle = Callable[[str], AbstractContextManager[BoundBundle]]


class Service:
    """A running service. Close it, or use it as a context manager; ``run`` serves until it is told to stop."""

    def __init__(self, bound: BoundBundle, options: ServeOptions, open_bundle: OpenBundle | None = None) -> None:
        """Verify, compile, attach, bind and start serving.

        :param open_bundle: opens, authenticates and binds what a reload names; None: reloads are refused
        :raises PortError: an interface or queue cannot be had
        :raises UxdpError: whatever verifying and compiling raises
        """
        self.options = options
        self._open_bundle = open_bundle
        self._bundle = options.bundle
        self.name = options.name or bound.authentic.bundle.manifest.name
        self.started = time.time()
        self.restarts = 0
        self._loop = EventLoop(terminate=lambda: self.stop("by a signal"))
        self.selector = self._loop.selector
        self._turns = ReloadTurns(self._loop)
        self._data: DataProcess | None = None
        self._pause = 0.0
        self._asked_before: Counter[str] = Counter()
        self._data_started = 0.0
        self._restart_at: float | None = None
        with ExitStack() as stack:
            # First, because it is what makes the name ours; requests are answered when the loop runs.
            self._control = stack.enter_context(ControlSocket(self.name, self.selector, self._handlers()))
            self.port: Port = DpdkPortSet(options) if options.dpdk else AfXdpPort(options)
            orphan, inherited = take_over(self.name, bound, options.params, self.port.num_workers)
            self.loaded = load(bound, options, self.port.num_workers, inherited=inherited)
            events.report_origin(self.loaded.compiled)
            stack.callback(lambda: self.loaded.close())
            self.port.check(self.loaded)
            if orphan is not None:
                with orphan:
                    orphan.stop()
                self.port.await_free()
            self._listener = stack.enter_context(listen(self.name))
            stack.callback(data_socket_path(self.name).unlink, missing_ok=True)
            stack.callback(self.port.close)
            self.port.open(self.loaded)
            self._pins = stack.enter_context(Pins(self.name))
            self._pins.replace(self.loaded.shared_maps)
            if self._pins.reason:
                events.report("not-pinned", f"maps are not pinned: {self._pins.reason}", reason=self._pins.reason)
            self._resources = stack.pop_all()
        self._start_data_process()
        self._loop.every_tick(self._tick)
        self._loop.on_hangup(self._on_hangup)
        self._loop.every_tick(self.port.look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving: what was received is finished, then programs are detached and queues given up."""
        self._loop.stop()
        self.port.set_away(True)
        if self._data is not None:
            self._end_data_process(self._data)
            self._data = None
        events.report_totals(self.port.counters())
        self._resources.close()
        self._loop.close()

    def every_tick(self, action: Callable[[], None]) -> None:
        """Have something done several times a second, in the event loop."""
        self._loop.every_tick(action)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        self._loop.run()

    def stop(self, reason: str = "asked to") -> None:
        """Let ``run`` return."""
        events.report("stopping", f"stopping: {reason}", reason=reason)
        self._loop.stop()

    @property
    def data_pid(self) -> int | None:
        """The data process that serves now."""
        return self._data.pid if self._data is not None else None

    def status(self, _request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what runs, on what, since when."""
        bundle = self.loaded.verified.bound.authentic.bundle
        return {
            "name": self.name,
            "bundle": bundle.path,
            "bundle_id": bundle.bundle_id,
            "program": self.loaded.compiled.source.entry,
            "pid": os.getpid(),
            "data_pid": self.data_pid,
            "serving": self._data is not None,
            "restarts": self.restarts,
            "started": self.started,
            "uptime_seconds": round(time.time() - self.started, 1),
            **self.port.facts(),
        }

    def stats(self, _request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return all counters."""
        return {
            "name": self.name,
            "time": time.time(),
            "restarts": self.restarts,
            "queues": [counters.as_json() for counters in self.port.counters()],
            **self.port.statistics(),
            **self._questions(),
        }

    def _questions(self) -> dict[str, Any]:
        """Return what the program asked the kernel; nothing if it asks nothing."""
        if self.loaded.watch is None:
            return {}
        total = self.loaded.questions + self._asked_before
        return {"kernel_questions": {name: total[name] for name in ("asked", "failed", "remembered")}}

    def reload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Serve another version of the bundle, without losing a frame.

        Takes {"bundle", "drop_maps"}; without a bundle, the one that was opened last is opened again. While LLVM works
        the event loop goes on.

        :raises UxdpError: the old version goes on; whatever opening, verifying and compiling raises, or a ReloadError
        """
        if self._open_bundle is None:
            raise UnsupportedFeatureError("reload", "this service was not told how to open bundles")
        name = str(request.get("bundle") or self._bundle)
        drop_maps = bool(request.get("drop_maps", False))
        with self._turns.taken(), ExitStack() as stack:
            bound = stack.enter_context(self._open_bundle(name))
            loaded, takeover = load_successor(
                self.loaded, bound, self.options, self.port.num_workers, drop_maps=drop_maps, resources=stack.pop_all()
            )
            stack.callback(loaded.close)
            pause = self._replace(loaded)
            old, self.loaded, self._bundle = self.loaded, loaded, name
            self._asked_before += old.questions
            stack.pop_all()
        old.close()
        self._pins.replace(self.loaded.shared_maps)
        done: dict[str, Any] = {
            "bundle": bound.authentic.bundle.path,
            "bundle_id": bound.authentic.bundle.bundle_id,
            **takeover.as_json(),
            "pause_ms": round(1000 * pause, 3),
        }
        events.report("reloaded", f"serves {name} now; nobody served for {1000 * pause:.1f} ms", **done)
        return done

    def _on_hangup(self) -> None:
        try:
            self.reload({})
        except UxdpError as error:
            events.report("reload_refused", f"not reloaded: {error}", level=logging.ERROR, reason=str(error))

    def _replace(self, loaded: Loaded) -> float:
        """Let a data process with another version take over; return for how many seconds nobody served.

        Where two of them can have the queues at once, frames wait in the RX rings meanwhile, and the next process goes
        on with them.
        """
        data = None if self.port.is_exclusive else self._fork(loaded)
        begun = time.monotonic()
        old, self._data, self._restart_at = self._data, None, None
        if old is not None:
            self.selector.unregister(old.pidfd)
            old.stop(drain=data is None)
            if not old.wait_ended(_STOP_SECONDS):
                self._await_end(old)
                old = None
        try:
            self._go(data if data is not None else self._fork(loaded))
        except PortError:
            self._start_data_process()
            raise
        finally:
            pause = time.monotonic() - begun
            if old is not None:
                self._await_end(old)
        self.port.set_program(loaded)
        return pause

    def _handlers(self) -> dict[str, Handler]:
        return {
            "status": self.status,
            "stats": self.stats,
            "stop": lambda _request: self.stop(),
            "reload": self.reload,
            **map_handlers(lambda: self.loaded.maps),
        }

    def _start_data_process(self) -> None:
        data = self._fork(self.loaded)
        self._go(data)

    def _fork(self, loaded: Loaded) -> DataProcess:
        asks = loaded.program.device_bound
        workers = [Worker(queue, module, asks) for queue, module in zip(self.port.queues, loaded.workers, strict=True)]
        data = fork_data_process(self.port, workers, Estate.of(loaded, self._listener), loaded.watch)
        try:
            found = data.wait_ready(_READY_SECONDS)
        except PortError:
            data.reap()
            raise
        if found is None:
            raise self._did_not_start(data)
        self.port.entered(found)
        return data

    def _did_not_start(self, data: DataProcess) -> PortError:
        os.kill(data.pid, signal.SIGKILL)
        return PortError(5, f"the data process did not start (exit status {data.reap()})", context=self.name)

    def _go(self, data: DataProcess) -> None:
        if not data.go(_READY_SECONDS):
            raise self._did_not_start(data)
        self.selector.register(data.pidfd, selectors.EVENT_READ, lambda _mask: self._on_data_end(data))
        self._data = data
        self._data_started = time.monotonic()
        self.port.set_away(False)
        events.report("data_process_serves", f"data process {data.pid} serves", pid=data.pid)

    def _on_data_end(self, data: DataProcess) -> None:
        if data is not self._data:
            return  # it was replaced in the same round of events
        self.port.set_away(True)
        self.selector.unregister(data.pidfd)
        status = data.reap()
        self._data = None
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        lived = time.monotonic() - self._data_started
        # The first time, and after a long life, at once.
        longer = min(self._pause * 2 or _SECOND_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        pause, self._pause = (0.0, _SECOND_PAUSE_SECONDS) if lived > _STABLE_SECONDS else (self._pause, longer)
        said = self.port.last_words()
        events.report(
            "data_process_ended",
            f"data process {data.pid} ended by {how} after {lived:.1f} s; restarting" + (f": {said}" if said else ""),
            level=logging.WARNING,
            pid=data.pid,
            status=status,
            lived_seconds=round(lived, 3),
            restart_in_seconds=pause,
        )
        self.restarts += 1
        self._restart_at = time.monotonic() + pause
        self._tick()

    def _tick(self) -> None:
        if self._restart_at is not None and time.monotonic() >= self._restart_at and not self._loop.is_stopping:
            self._restart_at = None
            try:
                self._start_data_process()
            except PortError as error:
                if not self.port.is_exclusive:
                    raise
                self._try_again(error)

    def _try_again(self, error: PortError) -> None:
        """A device may not be free yet, or its other end not be there."""
        self._pause = min(self._pause * 2 or _SECOND_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        self._restart_at = time.monotonic() + self._pause
        message = f"no data process can serve yet: {error}"
        events.report("restart_failed", message, level=logging.ERROR, restart_in_seconds=self._pause)

    def _end_data_process(self, data: DataProcess) -> None:
        self.selector.unregister(data.pidfd)
        data.stop(drain=True)
        self._await_end(data)

    def _await_end(self, data: DataProcess) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(data.pidfd, selectors.EVENT_READ)
            if not waiting.select(_STOP_SECONDS):
                os.kill(data.pid, signal.SIGKILL)
        data.reap()
