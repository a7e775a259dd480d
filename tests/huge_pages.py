"""Huge pages of 2 MiB, reserved for as long as a test or a benchmark lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@contextmanager
def reserved_huge_pages(count: int) -> Iterator[bool]:
    """Reserve so many, and give them back; what is yielded tells whether the kernel had room for all of them."""
    before = _RESERVED.read_text()
    _RESERVED.write_text(str(count))
    try:
        yield int(_RESERVED.read_text()) >= count
    finally:
        _RESERVED.write_text(before)
