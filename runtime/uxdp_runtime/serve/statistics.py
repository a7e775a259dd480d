"""Counters of a service: read from the queues' shared memory, added up, and told as numbers by name.

Counters only grow, and survive data processes. They are read while the queues' threads write them: each is whole, but a
frame may be in one of two counters that belong together and not yet in the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..ports.port_abi import LOSSES, QueueState
from .port import ServedQueue

VERDICTS: Final = ("aborted", "drop", "pass", "tx", "redirect")
_COUNTERS: Final = (
    *("tx_by_ring", "tx_by_injection", "broadcast_frames"),
    *("inject_calls", "inject_stalls", "polls", "bursts", "busy_ns"),
    *("stack_frames", "stack_lost", "cpumap_lost"),
)


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """One queue's counters at one time. Frames: ``rx_frames`` = the sum of ``verdicts`` and ``lost``."""

    interface: str
    queue_id: int
    zero_copy: bool
    rx_frames: int
    rx_bytes: int
    verdict_frames: tuple[int, ...]
    verdict_bytes: tuple[int, ...]
    lost: tuple[int, ...]
    others: tuple[int, ...]  # _COUNTERS
    latency: tuple[int, ...]
    kernel: Mapping[str, int]  # what the kernel counts for a socket
    rx_fill: int  # frames that wait in the RX ring
    rx_ring_size: int
    samples_taken: int
    samples_missed: int

    def as_json(self) -> dict[str, Any]:
        """Return everything by name."""
        return {
            "interface": self.interface,
            "queue": self.queue_id,
            "zero_copy": self.zero_copy,
            "rx_frames": self.rx_frames,
            "rx_bytes": self.rx_bytes,
            "verdicts": dict(zip(VERDICTS, self.verdict_frames, strict=True)),
            "verdict_bytes": dict(zip(VERDICTS, self.verdict_bytes, strict=True)),
            "lost": dict(zip(LOSSES, self.lost, strict=True)),
            **dict(zip(_COUNTERS, self.others, strict=True)),
            "latency_ns_log2": list(self.latency),
            "kernel": dict(self.kernel),
            "rx_ring_waiting": self.rx_fill,
            "rx_ring_size": self.rx_ring_size,
            "samples_taken": self.samples_taken,
            "samples_missed": self.samples_missed,
        }

    @property
    def ns_per_frame(self) -> float:
        """Mean time of a frame from the RX ring to its disposal."""
        return self.others[_COUNTERS.index("busy_ns")] / self.rx_frames if self.rx_frames else 0.0


def read_counters(
    queue: ServedQueue, *, zero_copy: bool, kernel: Mapping[str, int], rx_waiting: int, rx_ring_size: int
) -> QueueCounters:
    """Read one queue's counters, and put what its port says beside them."""
    state: QueueState = queue.state
    return QueueCounters(
        interface=queue.plan.interface.name,
        queue_id=queue.plan.queue_id,
        zero_copy=zero_copy,
        rx_frames=state.rx_frames,
        rx_bytes=state.rx_bytes,
        verdict_frames=tuple(state.verdict_frames),
        verdict_bytes=tuple(state.verdict_bytes),
        lost=tuple(state.lost),
        others=tuple(getattr(state, name) for name in _COUNTERS),
        latency=tuple(state.latency),
        kernel=kernel,
        rx_fill=rx_waiting,
        rx_ring_size=rx_ring_size,
        samples_taken=queue.samples.state.producer if queue.samples is not None else 0,
        samples_missed=queue.samples.state.missed if queue.samples is not None else 0,
    )
