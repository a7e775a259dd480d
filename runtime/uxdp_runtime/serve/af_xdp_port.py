"""The AF_XDP port of a service: programs attached to interfaces, sockets on their queues."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ..errors import PortError
from ..native_module import NativeModule
from ..ports.attachment import Attachment, await_detached
from ..ports.interface import Interface, interface
from . import events
from .confinement import confine
from .interface_watch import InterfaceWatch
from .loaded import Loaded
from .options import ServeOptions
from .port import Loop, QueuePlan, ServedQueue
from .ports_library import af_xdp_loop
from .queues import Queues, XskQueue, check_mtu, plan_queues
from .statistics import QueueCounters, read_counters


class AfXdpPort:
    """Interfaces of this network namespace, served by AF_XDP sockets."""

    def __init__(self, options: ServeOptions) -> None:
        """Look at the interfaces.

        :raises PortError: one does not exist, is down, or has no such queue
        """
        self._options = options
        self._interfaces = [usable_interface(name) for name in options.interfaces]
        self._plans = plan_queues(self._interfaces, options.queues, options.usable_cpus())
        self._attachments: tuple[Attachment, ...] = ()
        self._queues: Queues | None = None
        self._watch = InterfaceWatch(self._interfaces)
        self._resources = ExitStack()

    @property
    def num_workers(self) -> int:
        """How many queues are served."""
        return len(self._plans)

    @property
    def plans(self) -> tuple[QueuePlan, ...]:
        """Which queues are served, by worker."""
        return self._plans

    @property
    def queues(self) -> Sequence[XskQueue]:
        """The queues, by worker."""
        return self._queues.queues if self._queues is not None else ()

    @property
    def is_exclusive(self) -> bool:
        """Sockets can be handed over."""
        return False

    def check(self, loaded: Loaded) -> None:
        """Refuse frames that do not fit."""
        for target in self._interfaces:
            check_mtu(target, self._options.chunk_bytes, multi_buffer=loaded.takes_frags)

    def await_free(self) -> None:
        """Wait until nothing is attached to the interfaces any more, but not for long."""
        await_detached(self._interfaces)

    def open(self, loaded: Loaded) -> None:
        """Attach, away, and bind a socket to each queue."""
        options, stack = self._options, self._resources
        self._attachments = tuple(
            stack.enter_context(
                Attachment(
                    target,
                    fallback=options.on_failure,
                    program_fd=loaded.program.fd,
                    frags=loaded.takes_frags,
                    generic=options.generic,
                    replace=options.replace,
                    asks_hardware=loaded.program.device_bound,
                )
            )
            for target in self._interfaces
        )
        self._queues = stack.enter_context(
            Queues(
                self._plans,
                self._attachments,
                num_chunks=options.num_chunks,
                chunk_bytes=options.chunk_bytes,
                tx=options.tx,
                busy_poll=options.busy_poll,
                multi_buffer=loaded.takes_frags,
                sample_every=options.sample_every,
            )
        )
        events.report_ports(self._attachments, self.queues, generic=options.generic is True)
        self._watch = InterfaceWatch(self._interfaces, self.queues, options.chunk_bytes)

    def close(self) -> None:
        """Close the sockets and detach."""
        self._resources.close()

    def set_away(self, away: bool) -> None:
        """Let frames take the fallback, or not."""
        for attachment in self._attachments:
            attachment.set_away(away)

    def set_program(self, loaded: Loaded) -> None:
        """Let another version be the fallback."""
        for attachment in self._attachments:
            attachment.set_fallback_program(loaded.program.fd)

    def descriptors(self) -> set[int]:
        """Return links, sockets and injectors."""
        return self._opened.descriptors()

    def entered(self, facts: Mapping[str, Any]) -> None:
        """Nothing is found out by entering."""

    def look(self) -> None:
        """See whether interfaces go, or change."""
        self._watch.look()

    def counters(self) -> list[QueueCounters]:
        """Return all queues' counters, and what the kernel counts for their sockets."""
        return [
            read_counters(
                queue,
                zero_copy=queue.zero_copy,
                kernel=queue.socket.statistics().as_counters(),
                rx_waiting=queue.waiting(),
                rx_ring_size=queue.rings[0].mask + 1,
            )
            for queue in self.queues
        ]

    def last_words(self) -> str:
        """Nothing: it writes to this process's log."""
        return ""

    def facts(self) -> dict[str, Any]:
        """Return how each interface is served."""
        return {
            "huge_pages": self._opened.has_huge_pages,
            "interfaces": [
                {
                    "name": attachment.interface.name,
                    "ifindex": attachment.interface.index,
                    "gone": self._watch.is_gone(attachment.interface.index),
                    "attached": "generic" if attachment.is_generic else "native",
                    "queues": [
                        {"queue": queue.plan.queue_id, "cpu": queue.plan.cpu, "zero_copy": queue.zero_copy}
                        for queue in self.queues
                        if queue.plan.interface.index == attachment.interface.index
                    ],
                }
                for attachment in self._attachments
            ],
        }

    def statistics(self) -> dict[str, Any]:
        """There is nothing but the queues' counters."""
        return {}

    def enter(self) -> dict[str, Any]:
        """Everything was made by the control process, but not mapped by this one."""
        self._opened.populate()
        return {}

    def confine(self) -> None:
        """Keep what waiting, transmitting and injecting need."""
        confine()

    def descriptor(
        self, queue: ServedQueue, module: NativeModule, wake_fd: int, *, asks_hardware: bool
    ) -> tuple[Any, object]:
        """Return a struct uxdp_queue."""
        assert isinstance(queue, XskQueue)  # noqa: S101  # they are ours
        return self._opened.descriptor(queue, module, wake_fd)

    def loop(self) -> tuple[Loop, Loop]:
        """Return uxdp_af_xdp_recover and uxdp_af_xdp_serve."""
        return af_xdp_loop()

    def attend(self) -> None:
        """Nothing is to be done."""

    def leave(self) -> None:
        """All belongs to the control process."""

    @property
    def _opened(self) -> Queues:
        if self._queues is None:
            raise PortError(9, "is not open", context=", ".join(target.name for target in self._interfaces))
        return self._queues


def usable_interface(name: str) -> Interface:
    """Return an interface that is up.

    :raises PortError: ENODEV if there is none, ENETDOWN if it is down
    """
    found = interface(name)
    if not found.is_up:
        raise PortError(100, "the interface is down", context=name, remedy=f"ip link set dev {name} up")
    return found
