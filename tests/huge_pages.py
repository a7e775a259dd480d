"""Huge pages of 2 MiB, reserved for as long as a test or a benchmark lasts."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
_LOCK = Path(tempfile.gettempdir()) / "uxdp-tests-huge-pages.lock"


@contextmanager
def counting_on_huge_pages(operation: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Let no other test take back huge pages that were free a moment ago, while this one begins to use them."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, operation)
        yield


@contextmanager
def reserved_huge_pages(count: int) -> Iterator[bool]:
    """Reserve so many, and give them back; what is yielded tells whether the kernel had room for all of them."""
    before = _RESERVED.read_text()
    _RESERVED.write_text(str(count))
    try:
        yield int(_RESERVED.read_text()) >= count
    finally:
        with counting_on_huge_pages(fcntl.LOCK_EX):
            _RESERVED.write_text(before)
