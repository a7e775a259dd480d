"""What happens per second, from two snapshots of a service's counters: the answers to ``stats`` at two times."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# The kernel's own losses in front of the RX ring, by what the socket's statistics call them.
_KERNEL_LOSSES: Final = ("rx_dropped", "rx_ring_full", "rx_fill_ring_empty")
# A DPDK device's, for all of its queues; they are told with the first.
_DEVICE_LOSSES: Final = ("rx_missed", "rx_no_mbuf", "rx_errors", "tx_errors")


@dataclass(frozen=True, slots=True)
class Flow:
    """A kind of frames: how many there were, and of late per second. ``pps``, ``bps`` None: not known yet."""

    what: str
    frames: int
    pps: float | None
    bps: float | None


@dataclass(frozen=True, slots=True)
class QueueRates:
    """One queue, or the program in the kernel: ``interface`` is then "kernel", ``queue_id`` the program's id.

    ``verdicts`` and ``losses`` have what ever occurred; losses of the kernel's begin with ``kernel``.
    """

    interface: str
    queue_id: int
    received: Flow
    verdicts: tuple[Flow, ...]
    losses: tuple[Flow, ...]
    ns_per_frame: float | None  # of late, else ever; None: no frame
    rx_ring_waiting: int
    rx_ring_size: int
    note: str = ""


def rates(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> tuple[QueueRates, ...]:
    """Return what happened per second between two snapshots, for each queue of the later one, or for the kernel.

    A counter that went back is another service's of the same name: nothing is known about its rate.

    :param before: the earlier one; None: there is none, and no rates
    """
    seconds = after["time"] - before["time"] if before is not None else 0.0
    earlier = {} if before is None else {(item["interface"], item["queue"]): item for item in before["queues"]}
    if "kernel" in after:
        known = before is not None and before["kernel"]["program_id"] == after["kernel"]["program_id"] and seconds > 0
        return (_of_kernel(before["kernel"] if before is not None and known else None, after["kernel"], seconds),)
    queues = tuple(
        _of_queue(earlier.get((item["interface"], item["queue"])) if seconds > 0 else None, item, seconds)
        for item in after["queues"]
    )
    ports = {port["interface"]: port for port in after.get("ports", ())}
    return tuple(_with_port(queue, ports.get(queue.interface)) for queue in queues)


def _with_port(queue: QueueRates, port: Mapping[str, Any] | None) -> QueueRates:
    """Add what is known of a DPDK device to its first queue: losses, the link, and buffers in use for the RX ring."""
    if port is None or queue.queue_id != 0:
        return queue
    losses = tuple(
        Flow(f"device {name}", port["counters"][name], None, None) for name in _DEVICE_LOSSES if port["counters"][name]
    )
    return dataclasses.replace(
        queue,
        losses=queue.losses + losses,
        rx_ring_waiting=port["mbufs"] - port["mbufs_free"],
        rx_ring_size=port["mbufs"],
        note="" if port["link"]["up"] else " (link down)",
    )


def _of_queue(before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float) -> QueueRates:
    if before is not None and before["rx_frames"] > after["rx_frames"]:
        before = None
    verdicts = tuple(
        Flow(
            name,
            frames,
            _rate(before and before["verdicts"][name], frames, seconds),
            _rate(before and before["verdict_bytes"][name], after["verdict_bytes"][name], seconds, 8),
        )
        for name, frames in after["verdicts"].items()
        if frames
    )
    losses = [(name, "lost", name) for name in after["lost"]]
    losses += [(f"kernel {name}", "kernel", name) for name in _KERNEL_LOSSES]
    return QueueRates(
        interface=after["interface"],
        queue_id=after["queue"],
        received=Flow(
            "received",
            after["rx_frames"],
            _rate(before and before["rx_frames"], after["rx_frames"], seconds),
            _rate(before and before["rx_bytes"], after["rx_bytes"], seconds, 8),
        ),
        verdicts=verdicts,
        losses=tuple(
            Flow(what, after[group][name], _rate(before and before[group].get(name), after[group][name], seconds), None)
            for what, group, name in losses
            if after[group].get(name)
        ),
        ns_per_frame=_ns_per_frame(before, after),
        rx_ring_waiting=after["rx_ring_waiting"],
        rx_ring_size=after["rx_ring_size"],
    )


def _of_kernel(before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float) -> QueueRates:
    return QueueRates(
        interface="kernel",
        queue_id=after["program_id"],
        received=Flow("runs", after["runs"], _rate(before and before["runs"], after["runs"], seconds), None),
        verdicts=(),
        losses=(),
        ns_per_frame=after["run_ns"] / after["runs"] if after["runs"] else None,
        rx_ring_waiting=0,
        rx_ring_size=0,
    )


def _rate(before: Any, after: int, seconds: float, scale: int = 1) -> float | None:
    return None if before is None else max(after - before, 0) * scale / seconds


def _ns_per_frame(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> float | None:
    since = before if before is not None and after["rx_frames"] > before["rx_frames"] else None
    frames = after["rx_frames"] - (since["rx_frames"] if since else 0)
    return (after["busy_ns"] - (since["busy_ns"] if since else 0)) / frames if frames else None
