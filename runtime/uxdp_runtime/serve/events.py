"""Events of a service: what happened to it, each once, as a line for people or a JSON object for machines.

Whoever runs a service decides where they go: they are records of the logger ``uxdp_runtime.serve``, with the event's
name and fields beside the message. A record of any other logger is an event called ``log``.
"""

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from ..compile.program import CompiledProgram, Origin
from ..ports.attachment import Attachment
from .queues import XskQueue
from .statistics import VERDICTS, QueueCounters

LOGGER: Final = "uxdp_runtime.serve"

_log = logging.getLogger(LOGGER)


def report(event: str, message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Report an event.

    :param event: its name, stable, for machines
    :param message: one sentence, for people
    :param fields: what JSON can hold
    """
    _log.log(level, "%s", message, extra={"event": event, "fields": fields})


def report_origin(compiled: CompiledProgram) -> None:
    """Report where native code came from, and why it is not the bundle's own if that has some."""
    for rejection in compiled.rejections:
        message = f"native code in the bundle is not used: {rejection}"
        report("native_refused", message, level=logging.WARNING, member=rejection.member, field=rejection.field)
    origin = {Origin.AHEAD: "from the bundle", Origin.CACHE: "from the cache", Origin.LLVM: "compiled now"}
    message = f"{compiled.source.entry}: native code {origin[compiled.origin]}"
    report("compiled", message, program=compiled.source.entry, origin=compiled.origin.value)


def report_ports(attachments: Sequence[Attachment], queues: Sequence[XskQueue], *, generic: bool) -> None:
    """Report how each interface is served: attached to what, and whether frames are copied, and why.

    :param generic: whether generic XDP was asked for, so that it is no fallback
    """
    for attachment in attachments:
        name = attachment.interface.name
        report_attached(name, is_generic=attachment.is_generic, asked=generic)
        if attachment.no_answers:
            message = f"{name}: the driver does not tell what hardware knows of frames: {attachment.no_answers}"
            report("no-metadata", message, level=logging.WARNING, interface=name, reason=attachment.no_answers)
        for reason in dict.fromkeys(queue.copy_reason for queue in queues if queue.plan.interface.name == name):
            numbers = [
                queue.plan.queue_id
                for queue in queues
                if queue.plan.interface.name == name and queue.copy_reason == reason
            ]
            how = f"copied: {reason}" if reason else "not copied (zero-copy)"
            report(
                "bound",
                f"{name}: {_numbered(numbers)}: frames are {how}",
                interface=name,
                queues=numbers,
                zero_copy=not reason,
                reason=reason,
            )


def report_attached(name: str, *, is_generic: bool, asked: bool) -> None:
    """Report how a program is attached to an interface; ``asked``: generic XDP was asked for, so it is no fallback."""
    mode = "generic" if is_generic else "native"
    fell_back = is_generic and not asked
    what = "the driver has no XDP, falling back to generic XDP" if fell_back else f"attached, {mode} XDP"
    level = logging.WARNING if fell_back else logging.INFO
    report("attached", f"{name}: {what}", level=level, interface=name, mode=mode, fell_back=fell_back)


def report_totals(counters: Sequence[QueueCounters]) -> None:
    """Report that the service has stopped, and what became of all frames."""
    verdicts = {name: sum(c.verdict_frames[i] for c in counters) for i, name in enumerate(VERDICTS)}
    received = sum(c.rx_frames for c in counters)
    lost = sum(sum(c.lost) for c in counters)
    told = ", ".join(f"{name} {count}" for name, count in verdicts.items() if count)
    report(
        "stopped",
        f"stopped: {received} frames received" + (f": {told}" if told else "") + f"; {lost} lost",
        received=received,
        verdicts=verdicts,
        lost=lost,
    )


class LineFormatter(logging.Formatter):
    """One line for each event, control characters escaped: names in it are other people's."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage()
        clean = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
        kind = "" if record.levelno < logging.WARNING else "error: " if record.levelno >= logging.ERROR else "warning: "
        return f"uxdp: {kind}{clean}"


class JsonFormatter(logging.Formatter):
    """One JSON object for each event: ``time`` (UTC, RFC 3339), ``level``, ``event``, ``message``, ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, ASCII only, on one line."""
        return json.dumps(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "event": getattr(record, "event", "log"),
                "message": record.getMessage(),
                "fields": getattr(record, "fields", {}),
            },
            default=str,
        )


def _numbered(numbers: Sequence[int]) -> str:
    return f"queue{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
