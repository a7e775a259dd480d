"""What happens to the interfaces of a service while it serves: they go, go down and up, change MTU or queues.

A service looks at its interfaces several times a second. One that is gone ends there, with an error, and its queues'
threads end; the others go on. A socket is bound to the device, so an interface that comes back under its name is
another one, and is not served. When none is left, the service ends.

What goes down comes back by itself: queues, sockets and the attached program stay with the device.
"""

import errno
import logging
from collections.abc import Sequence

from ..errors import PortError
from ..ports.interface import Interface, interface_at
from . import events
from .port import ServedQueue
from .queues import longest_frame_bytes, needed_frame_bytes


class InterfaceWatch:
    """The interfaces of a service, as they were when they were last looked at."""

    def __init__(
        self, interfaces: Sequence[Interface], queues: Sequence[ServedQueue] = (), chunk_bytes: int | None = None
    ) -> None:
        """Begin with interfaces as they are.

        :param queues: those that are served here; none in the kernel mode
        :param chunk_bytes: what frames must fit; None: whatever the driver takes
        """
        self._names = ", ".join(target.name for target in interfaces)
        self._queues = tuple(queues)
        self._chunk_bytes = chunk_bytes
        self._seen: dict[int, Interface] = {target.index: target for target in interfaces}
        self._gone: set[int] = set()

    def is_gone(self, ifindex: int) -> bool:
        """Return whether an interface has gone."""
        return ifindex in self._gone

    def look(self) -> None:
        """Look at the interfaces, and report what has changed.

        :raises PortError: ENODEV if none is left
        """
        for ifindex, before in list(self._seen.items()):
            now = interface_at(ifindex)
            if now is None:
                self._lose(ifindex, before)
            elif now != before:
                self._seen[ifindex] = now
                self._report(before, now)
        if not self._seen:
            raise PortError(errno.ENODEV, "no interface is left to serve", context=self._names)

    def _lose(self, ifindex: int, before: Interface) -> None:
        del self._seen[ifindex]
        self._gone.add(ifindex)
        for queue in self._queues:
            if queue.plan.interface.index == ifindex:
                queue.state.gone = 1
        events.report(
            "interface_gone",
            f"{before.name}: the interface is gone",
            level=logging.ERROR,
            interface=before.name,
            ifindex=ifindex,
        )

    def _report(self, before: Interface, now: Interface) -> None:
        name = now.name
        if before.name != name:
            events.report(
                "interface_renamed", f"{before.name} is called {name} now", interface=name, before=before.name
            )
        if before.is_up != now.is_up:
            state = "up" if now.is_up else "down"
            level = logging.INFO if now.is_up else logging.WARNING
            events.report(f"interface_{state}", f"{name}: the interface is {state}", level=level, interface=name)
        if before.mtu != now.mtu:
            longest = longest_frame_bytes(self._chunk_bytes) if self._chunk_bytes is not None else None
            fits = longest is None or needed_frame_bytes(now.mtu) <= longest
            what = f"{name}: the MTU is {now.mtu}, it was {before.mtu}"
            if not fits:
                what += f"; frames of more than {longest} bytes do not fit a chunk"
            level = logging.INFO if fits else logging.WARNING
            events.report("interface_mtu", what, level=level, interface=name, mtu=now.mtu, before=before.mtu)
        if before.num_rx_queues != now.num_rx_queues and self._queues:
            served = sum(queue.plan.interface.index == now.index for queue in self._queues)
            events.report(
                "interface_queues",
                f"{name}: {now.num_rx_queues} RX queues, it had {before.num_rx_queues}; {served} are served, frames of"
                " others go where --on-failure says: restart the service to serve them",
                level=logging.WARNING,
                interface=name,
                queues=now.num_rx_queues,
                before=before.num_rx_queues,
                served=served,
            )
