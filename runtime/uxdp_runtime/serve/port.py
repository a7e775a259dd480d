"""What a service needs of a port: AF_XDP (af_xdp_port) and DPDK (dpdk_port) both fulfil it.

The control process makes a port, opens it, and looks after it; data processes are forked from it, and enter the port
before they are confined. What is in shared memory (``ServedQueue.state``) is seen by both.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..ports.interface import Interface
from ..ports.port_abi import QueueState

if TYPE_CHECKING:
    from ..native_module import NativeModule
    from .loaded import Loaded
    from .sample_ring import SampleRing
    from .statistics import QueueCounters

Loop = Callable[[int], int]
# An Ethernet header and a VLAN tag
LINK_BYTES: Final = 18


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """Which queue is served, by which worker, on which CPU."""

    interface: Interface
    queue_id: int
    worker: int
    cpu: int


class ServedQueue:
    """One queue of any port: what it is, its counters, its samples."""

    def __init__(self, plan: QueuePlan, num_chunks: int = 0) -> None:
        self.plan = plan
        self._memory = mmap.mmap(-1, ctypes.sizeof(QueueState) + num_chunks)  # shared with forked processes
        self.state = QueueState.from_buffer(self._memory)
        self.state.num_chunks = num_chunks
        self.samples: SampleRing | None = None


class Port(Protocol):
    """The interfaces of a service, and all their queues.

    Made before anything is verified: it then knows its interfaces and how many workers they need, and has nothing open.
    """

    @property
    def num_workers(self) -> int:
        """How many queues are served."""
        ...

    @property
    def queues(self) -> Sequence[ServedQueue]:
        """The queues, by worker; they exist once the port is open."""
        ...

    @property
    def is_exclusive(self) -> bool:
        """Whether only one data process can have the queues, so that it must end before the next one begins."""
        ...

    # --- the control process ---

    def check(self, loaded: Loaded) -> None:
        """Refuse a program that cannot be served here.

        :raises PortError: why
        """
        ...

    def await_free(self) -> None:
        """Wait until nothing of a service that ended just now is attached any more."""
        ...

    def open(self, loaded: Loaded) -> None:
        """Take the interfaces and queues, and report how. Frames do what the fallback says.

        :raises PortError: one cannot be had; ``close`` gives up the rest
        """
        ...

    def close(self) -> None:
        """Give up what is open."""
        ...

    def set_away(self, away: bool) -> None:
        """Say whether a data process serves."""
        ...

    def set_program(self, loaded: Loaded) -> None:
        """Say which version is served."""
        ...

    def descriptors(self) -> set[int]:
        """Return the descriptors that a data process must keep."""
        ...

    def entered(self, facts: Mapping[str, Any]) -> None:
        """Take note of what a new data process found when it entered."""
        ...

    def look(self) -> None:
        """See what has happened to the interfaces, and report it; called several times a second.

        :raises PortError: none is left
        """
        ...

    def counters(self) -> list[QueueCounters]:
        """Return all queues' counters."""
        ...

    def last_words(self) -> str:
        """Return what a data process that ended had to say; "": nothing."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what ``status`` says of the port."""
        ...

    def statistics(self) -> dict[str, Any]:
        """Return what ``stats`` says of the port besides the queues' counters."""
        ...

    # --- a data process ---

    def enter(self) -> dict[str, Any]:
        """Make what belongs to this process, before it is confined; return what the control process shall know of it.

        :raises PortError: it cannot be made
        """
        ...

    def confine(self) -> None:
        """Give up all that serving does not need.

        :raises OSError: a step failed; the process must then end
        """
        ...

    def descriptor(
        self, queue: ServedQueue, module: NativeModule, wake_fd: int, *, asks_hardware: bool
    ) -> tuple[Any, object]:
        """Return the struct that the thread of a queue works with, and what must live as long.

        :param wake_fd: an eventfd that ends the thread's sleep
        :param asks_hardware: whether the program asks for what hardware knows of a frame
        The struct has a member ``stop``.
        """
        ...

    def loop(self) -> tuple[Loop, Loop]:
        """Return what is called with the address of such a struct: before serving, and to serve."""
        ...

    def attend(self) -> None:
        """Do what is to be done now and then, while the queues' threads serve."""
        ...

    def leave(self) -> None:
        """Give up what belongs to this process, when no thread of it touches a queue any more."""
        ...
