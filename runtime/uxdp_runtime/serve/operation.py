"""What makes a running service visible: the live table, metrics, samples, and what the service manager is told.

All of it happens in the service's event loop, a few times a second. None of it can end the service: what fails is
reported once, and not done any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from uxdp_bundle.errors import UxdpError

from ..compile.loader import Function
from . import events
from .kernel_service import KernelService
from .perf_map import PerfMap
from .ports_library import ports_library
from .rates import rates
from .service import Service
from .service_manager import ServiceManager

if TYPE_CHECKING:
    from .live_table import LiveTable
    from .metrics import MetricsEndpoint
    from .sampling import Sampler

_REFRESH_SECONDS: Final = 1.0
_STATUS_SECONDS: Final = 5.0


class Operation:
    """The observers of one service, while it runs. Close it, or use it as a context manager."""

    def __init__(
        self,
        service: Service | KernelService,
        *,
        table: LiveTable | None = None,
        metrics: MetricsEndpoint | None = None,
        manager: ServiceManager | None = None,
        sampler: Sampler | None = None,
        perf_map: PerfMap | None = None,
    ) -> None:
        """Begin to observe a service that serves, and say so; what is given is closed by whoever made it."""
        self._service = service
        self._queues = tuple(service.port.queues) if isinstance(service, Service) else ()
        self._manager = manager
        self._table = table
        self._before: Mapping[str, Any] | None = None
        self._told: Mapping[str, Any] | None = None
        self._refused: set[tuple[str, int]] = set()
        service.every_tick(self._watch_injection)
        if table is not None:
            service.every_tick(_until_it_fails("the live table", _every(_REFRESH_SECONDS, self.refresh)))
        if metrics is not None:
            metrics.serve(service.selector, service.status, service.stats)
            service.every_tick(metrics.drop_slow)
            events.report("metrics", f"metrics on {metrics.url}", url=metrics.url)
        if sampler is not None:
            for queue in self._queues:
                if queue.samples is not None:
                    sampler.add(queue.samples, queue.plan.interface.name, queue.plan.queue_id)
            service.every_tick(sampler.drain)
        self._perf_map = perf_map
        if perf_map is not None:
            self._name_code()
            service.every_tick(self._name_code)
        if manager is not None:
            manager.tell("READY=1")
            service.every_tick(_until_it_fails("the status line", _every(_STATUS_SECONDS, self._tell_status)))
            service.every_tick(self._tell_alive)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Say that the service is about to stop."""
        if self._manager is not None:
            self._manager.tell("STOPPING=1")
        if self._table is not None:
            _until_it_fails("the live table", self.refresh)()
        if self._perf_map is not None:
            self._perf_map.close()

    def refresh(self) -> None:
        """Draw the table as it is now."""
        if self._table is not None:
            after = self._service.stats()
            self._table.show(self._service.status(), rates(self._before, after))
            self._before = after

    def _tell_status(self) -> None:
        after = self._service.stats()
        if self._manager is not None:
            self._manager.tell_status(status_line(self._service.status(), self._told, after))
        self._told = after

    def _tell_alive(self) -> None:
        if self._manager is not None:
            states = [queue.state for queue in self._queues]
            # The thread of a queue whose interface is gone has ended, as it should.
            self._manager.tell_alive([state.heartbeat_ns for state in states if not state.gone])

    def _name_code(self) -> None:
        if self._perf_map is None or not isinstance(self._service, Service):
            return
        try:
            if self._perf_map.follow(self._service.data_pid, code_of(self._service)):
                path = str(self._perf_map.path)
                events.report("perf_map", f"perf finds the names of compiled code in {path}", path=path)
        except OSError as cause:
            message = f"{self._perf_map.path}: cannot be written: {cause.strerror or cause}"
            events.report("perf_map_failed", message, level=logging.WARNING, path=str(self._perf_map.path))

    def _watch_injection(self) -> None:
        """Report, once for each queue, that the driver takes no injected frames."""
        for queue in self._queues:
            place = (queue.plan.interface.name, queue.plan.queue_id)
            if queue.state.injection_refused and place not in self._refused:
                self._refused.add(place)
                events.report(
                    "injection_refused",
                    f"{place[0]}: queue {place[1]}: the driver takes no injected frames, transmitting by the ring",
                    interface=place[0],
                    queue=place[1],
                )


def code_of(service: Service) -> list[Function]:
    """Return the functions that the data process runs: the ports', and the program's for every worker."""
    program = service.loaded.compiled.source.entry
    named = list(ports_library().functions)
    for number, module in enumerate(service.loaded.workers):
        place = f"[{program}, worker {number}]"
        named += [replace(function, name=f"{function.name} {place}") for function in module.functions]
    return named


def status_line(status: Mapping[str, Any], before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Return how a service is, in one line."""
    places = ", ".join(item["name"] for item in status["interfaces"])
    if status.get("mode") == "kernel":
        return f"the kernel serves {places}"
    flows = rates(before, after)
    received = sum(queue.received.pps or 0 for queue in flows)
    lost = sum(flow.frames for queue in flows for flow in queue.losses)
    state = "serving" if status["serving"] else "not serving"
    return f"{state} {places}: {received:.0f} frames per second, {lost} lost, {status['restarts']} restarts"


def _until_it_fails(what: str, action: Callable[[], None]) -> Callable[[], None]:
    """Return what does something until that raises an error, which is reported, and nothing from then on."""
    failed = False

    def act() -> None:
        nonlocal failed
        if failed:
            return
        try:
            action()
        except (OSError, UxdpError) as error:
            failed = True
            message = f"{what} ends, serving goes on: {getattr(error, 'strerror', None) or error}"
            events.report("observer_failed", message, level=logging.WARNING, what=what)

    return act


def _every(seconds: float, action: Callable[[], None]) -> Callable[[], None]:
    """Return what does something at its first call, and then at calls that are so far apart."""
    due = 0.0

    def act() -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + seconds
            action()

    return act
