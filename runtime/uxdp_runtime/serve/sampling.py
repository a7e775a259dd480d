"""Samples of a service's traffic: every Nth frame of each queue with its verdict, written as pcapng.

A queue's thread copies frames into a ring (sample_ring); the control process takes them out in its event loop and
writes them. Neither waits for the other: samples that find the ring full are missed, and counted; a file that cannot be
written any more ends sampling, and nothing else.
"""

import logging
from collections.abc import Sequence
from typing import Self

from ..frames.capture import CaptureError
from ..frames.verdict_capture import VerdictCapture
from . import events
from .sample_ring import SampleRing


class Sampler:
    """Writes the samples of all queues to one file. Close it, or use it as a context manager."""

    def __init__(self, path: str, interfaces: Sequence[str]) -> None:
        """Create the file.

        :param interfaces: the names of those that are served
        :raises CaptureError: it cannot be written
        """
        self._interfaces = tuple(interfaces)
        self._capture: VerdictCapture | None = VerdictCapture(path, interfaces)
        self._rings: list[tuple[SampleRing, int, int]] = []
        self.frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def add(self, ring: SampleRing, interface: str, queue_id: int) -> None:
        """Take samples from a queue, too."""
        self._rings.append((ring, self._interfaces.index(interface), queue_id))

    def drain(self) -> None:
        """Write what there is; to be called often. A failure is reported once, and ends sampling."""
        if self._capture is None:
            return
        frames = [frame for ring, interface, queue_id in self._rings for frame in ring.take(interface, queue_id)]
        try:
            self._capture.write(sorted(frames, key=lambda frame: frame.timestamp_ns))
        except CaptureError as error:
            self._end(f"sampling has ended, serving goes on: {error.context}: {error.message}", logging.WARNING)
            return
        self.frames += len(frames)

    def close(self) -> None:
        """Write the rest, after the data process has ended, and close the file."""
        self.drain()
        if self._capture is not None:
            self._end("sampling has ended", logging.INFO)

    def _end(self, message: str, level: int) -> None:
        assert self._capture is not None  # noqa: S101  # both callers have seen it
        self._capture.close()
        missed = sum(ring.state.missed for ring, _interface, _queue in self._rings)
        events.report(
            "sampling_ended",
            f"{message}; {self.frames} frames in {self._capture.path}, {missed} missed",
            level=level,
            path=self._capture.path,
            frames=self.frames,
            missed=missed,
        )
        self._capture = None
