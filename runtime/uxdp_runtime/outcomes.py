"""What kernel and native code made of a frame or map, and whether it is the same: pure comparisons.

Time and random numbers differ between two runs. So there are three outcomes: the kernel's, the native code's, and that
of another native run (the shadow) with another clock and other random numbers. 8-byte words on which the two native
runs disagree depend on time or chance. Ring buffers of the two hold different garbage before a record is written, which
tells the bytes that a program leaves as they were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

VERDICTS: Final = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")
# What records hold where a program wrote nothing: in the native code's ring buffers, and in the shadow's.
GARBAGE: Final = 0x5A
SHADOW_GARBAGE: Final = 0xA5
_WORD_BYTES: Final = 8


def verdict_name(verdict: int) -> str:
    """Return a verdict's name, or its number if it is none of enum xdp_action."""
    return VERDICTS[verdict] if 0 <= verdict < len(VERDICTS) else str(verdict)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where a frame goes: to the interface ``index``, or where the map says that is named, at the key ``index``.

    ``is_broadcast``: to all devices of that devmap.
    """

    map: str | None
    index: int
    is_broadcast: bool = False

    def __str__(self) -> str:
        if self.map is None:
            return f"interface {self.index}"
        return f"map {self.map}, {f'all devices (key {self.index})' if self.is_broadcast else f'key {self.index}'}"


@dataclass(frozen=True, slots=True)
class Records:
    """What a frame added to one ring buffer: the bytes that were reserved, and the records that were submitted."""

    map: str
    reserved_bytes: int
    submitted: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a frame. ``redirect`` is None if the target is not known, or there is none."""

    verdict: int
    data: bytes
    metadata: bytes
    redirect: Redirect | None = None
    records: tuple[Records, ...] = ()


@dataclass(frozen=True, slots=True)
class MapDifference:
    """An element that kernel and native map do not agree on; None: it is not there.

    ``blamed`` is the native value with the kernel's words where time or chance decide: what is left of the difference.
    ``in_bursts``: natively the frames were run in bursts, and one by one there is no difference.
    """

    map: str
    key: bytes
    kernel: bytes | None
    native: bytes | None
    blamed: bytes | None
    in_bursts: bool = False


def core(outcome: Outcome) -> tuple[int, bytes, bytes]:
    """Return what every frame has: verdict, bytes and metadata."""
    return outcome.verdict, outcome.data, outcome.metadata


def difference(kernel: Outcome, tested: Outcome, native: Outcome, shadow: Outcome) -> str:
    """Say in what the outcome of native code differs from the kernel's first; nothing if in nothing, or by chance.

    :param tested: what is compared
    :param native: of a native run, perhaps the same; where ``shadow`` differs from it, chance decides
    """
    if kernel.verdict != tested.verdict:
        return "verdict"
    if kernel.data != tested.data:
        return "bytes"
    if kernel.metadata != tested.metadata:
        return "metadata"
    if kernel.redirect is not None and kernel.redirect != tested.redirect and native.redirect == shadow.redirect:
        return "redirect target"
    if not all(map(same_records, kernel.records, tested.records, native.records, shadow.records)):
        return "ring-buffer records"
    return ""


def same_records(kernel: Records, tested: Records, native: Records, shadow: Records) -> bool:
    """Whether both sides wrote the same records, but for words that depend on time or chance; see ``difference``."""
    if _shape(native) != _shape(shadow):
        return True  # how many there are depends on chance itself
    if _shape(kernel) != _shape(tested) or _shape(native) != _shape(kernel):
        return False
    return all(map(_same_record, kernel.submitted, tested.submitted, native.submitted, shadow.submitted))


def _shape(records: Records) -> tuple[int, list[int]]:
    return records.reserved_bytes, [len(record) for record in records.submitted]


def joined(added: Sequence[tuple[Records, ...]]) -> tuple[Records, ...]:
    """Return what several frames added to the ring buffers, as if it were one frame."""
    return tuple(
        Records(
            frames[0].map,
            sum(records.reserved_bytes for records in frames),
            tuple(record for records in frames for record in records.submitted),
        )
        for frames in zip(*added, strict=True)
    )


def _same_record(kernel: bytes, tested: bytes, native: bytes, shadow: bytes) -> bool:
    if kernel == tested:
        return True
    written = bytes(not (one == GARBAGE and other == SHADOW_GARBAGE) for one, other in zip(native, shadow, strict=True))
    one, *others = (
        bytes(byte if kept else 0 for byte, kept in zip(side, written, strict=True))
        for side in (kernel, tested, native, shadow)
    )
    return one == _without_chance(one, *others)


def map_difference(
    name: str, key: bytes, kernel: bytes | None, tested: bytes | None, native: bytes | None, shadow: bytes | None
) -> Iterator[MapDifference]:
    """Yield what differs for certain, or nothing; see ``difference``.

    An element that only one of the two native runs has is there by chance itself.
    """
    if kernel is None or tested is None or native is None or shadow is None:
        if kernel != tested and (native is None) == (shadow is None):
            yield MapDifference(name, key, kernel, tested, None)
        return
    blamed = _without_chance(kernel, tested, native, shadow)
    if blamed != kernel:
        yield MapDifference(name, key, kernel, tested, blamed)


def _without_chance(kernel: bytes, tested: bytes, native: bytes, shadow: bytes) -> bytes:
    """Return the tested bytes with the kernel's for words on which the two native runs disagree."""
    if native == shadow:
        return tested
    words = (slice(start, start + _WORD_BYTES) for start in range(0, len(native), _WORD_BYTES))
    return b"".join((tested if native[word] == shadow[word] else kernel)[word] for word in words)
