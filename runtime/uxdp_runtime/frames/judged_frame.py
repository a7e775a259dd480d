"""A frame with its verdict, as it is sampled."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JudgedFrame:
    """A frame and its verdict. ``data`` may be its beginning; ``len_bytes`` is all of it."""

    interface: int  # its place among the file's
    queue_id: int
    timestamp_ns: int
    verdict: int
    data: bytes
    len_bytes: int
