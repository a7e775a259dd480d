"""The table of a service: per queue what is received, which verdicts frames get, what is lost and why.

``table_rows`` is pure; ``LiveTable`` keeps the table at the end of a terminal while events scroll by above. It has no
thread of its own (see service): who owns it calls ``show``.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .rates import Flow, QueueRates

COLUMNS: Final = ("Queue", "Frames", "Total", "pps", "bit/s", "ns/frame", "RX ring")
_PREFIXES: Final = ("", "k", "M", "G", "T")


def scaled(value: float | None) -> str:
    """Return a number with three digits and a prefix, such as ``1.24M``; ``-`` for None."""
    if value is None:
        return "-"
    power = 0
    while value >= 999.5 and power < len(_PREFIXES) - 1:
        value /= 1000
        power += 1
    digits = 0 if not power or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f}{_PREFIXES[power]}"


def table_rows(queues: Sequence[QueueRates]) -> list[tuple[str, ...]]:
    """Return the cells of COLUMNS: for each queue a row of what it received, one per verdict and one per loss."""
    rows: list[tuple[str, ...]] = []
    for queue in queues:
        cost = "-" if queue.ns_per_frame is None else f"{queue.ns_per_frame:.0f}"
        fill = f"{queue.rx_ring_waiting}/{queue.rx_ring_size}" if queue.rx_ring_size else "-"
        rows.append((f"{queue.interface}:{queue.queue_id}{queue.note}", *_cells(queue.received), cost, fill))
        rows += [("", *_cells(flow), "", "") for flow in queue.verdicts]
        rows += [("", f"lost: {flow.what}", *_cells(flow)[1:], "", "") for flow in queue.losses]
    return rows


def _cells(flow: Flow) -> tuple[str, str, str, str]:
    return flow.what, str(flow.frames), scaled(flow.pps), scaled(flow.bps)


def title(status: Mapping[str, Any]) -> str:
    """Return the line above the table."""
    where = "in the kernel" if status.get("mode") == "kernel" else f"data process {status['data_pid']}"
    state = where if status["serving"] else "NOT SERVING"
    seconds = int(status["uptime_seconds"])
    uptime = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    restarts = f", {status['restarts']} restarts" if status["restarts"] else ""
    return f"{status['name']}: {status['program']}, up {uptime}, {state}{restarts}"


class LiveTable:
    """The table on a terminal. Close it, or use it as a context manager: its last state stays."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self.console = console
        self._live = Live(
            console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False, transient=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def show(self, status: Mapping[str, Any], queues: Sequence[QueueRates]) -> None:
        """Draw the table anew."""
        table = Table(title=_text(title(status)), title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", no_wrap=True)
        for row in table_rows(queues):
            table.add_row(*map(_text, row), style="red" if row[1].startswith("lost") else "bold" if row[0] else "")
        if not self._live.is_started:
            self._live.start()
        self._live.update(table, refresh=True)

    def close(self) -> None:
        """Leave the table where it is."""
        with suppress(OSError):  # the terminal has gone
            self._live.stop()


class ConsoleHandler(logging.Handler):
    """Prints log records above a live table."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            self._console.print(_text(self.format(record)), soft_wrap=True)
        except OSError:  # the terminal has gone; serving goes on
            self.handleError(record)


def _text(text: str) -> Text:
    """Return text as it is: square brackets are no markup, control characters do nothing."""
    return Text("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
