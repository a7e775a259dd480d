"""The control process's one loop: descriptors that become readable, signals, what is done several times a second."""

import os
import selectors
import signal
from collections.abc import Callable
from typing import Final

_TICK_SECONDS: Final = 0.25


class EventLoop:
    """One thread's loop. ``selector`` takes callbacks as the data of what is registered; they get the events' mask."""

    def __init__(self, *, terminate: Callable[[], None] | None = None) -> None:
        """Make it.

        :param terminate: what SIGTERM and SIGINT do; None: ``stop``
        """
        self._terminate = terminate or self.stop
        self.selector = selectors.DefaultSelector()
        self.is_stopping = False
        self._ticks: list[Callable[[], None]] = []
        self._on_hangup: list[Callable[[], None]] = []

    def close(self) -> None:
        """Give up the selector."""
        self.selector.close()

    def every_tick(self, action: Callable[[], None]) -> None:
        """Have something done several times a second."""
        self._ticks.append(action)

    def on_hangup(self, action: Callable[[], None]) -> None:
        """Have something done at every SIGHUP."""
        self._on_hangup.append(action)

    def stop(self) -> None:
        """Let ``run`` return."""
        self.is_stopping = True

    def run(self) -> None:
        """Call what is registered until ``stop``."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        self.selector.register(reader, selectors.EVENT_READ, lambda _mask: self._on_signal(reader))
        try:
            while not self.is_stopping:
                self.turn(_TICK_SECONDS)
        finally:
            self.selector.unregister(reader)
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def turn(self, patience_seconds: float = 0.0) -> None:
        """Call once what is registered and ready, and what is done several times a second.

        What is called may itself take turns, if it takes long. So whatever it finds may have been done by then.
        """
        for key, mask in self.selector.select(patience_seconds):
            key.data(mask)
        for action in self._ticks:
            action()

    def _on_signal(self, reader: int) -> None:
        try:
            numbers = set(os.read(reader, 64))
        except BlockingIOError:
            return
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._terminate()
        elif signal.SIGHUP in numbers:
            for action in self._on_hangup:
                action()


def _ignore(_number: int, _frame: object) -> None:
    """Signals are read from the wake-up descriptor."""
